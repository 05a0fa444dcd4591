//! Names that a reader could mistake for one another.

/// Returns a key that is the same for all names that look alike: the skeleton of UTS #39 in lower
/// case, which also ignores differences between ASCII letters (`0 o`, `1 l i`, `rn m`, `vv w`) and
/// every `_`.
///
/// Each letter is rewritten on its own (`m` as `rn`, never `rn` as `m`), so that the key of two
/// joined names is their joined keys. Rewriting pairs would depend on where it starts: `vvv` could
/// become `wv` or `vw`, which look alike but would differ.
pub fn lookalike_key(name: &str) -> String {
    let lower = name.to_lowercase();
    let skeleton: String = unicode_security::skeleton(&lower).collect();
    let mut key = String::with_capacity(skeleton.len() + 4);
    for c in skeleton.chars().flat_map(char::to_lowercase) {
        match c {
            '_' => {}
            '0' => key.push('o'),
            '1' | 'i' => key.push('l'),
            'm' => key.push_str("rn"),
            'w' => key.push_str("vv"),
            other => key.push(other),
        }
    }
    key
}
