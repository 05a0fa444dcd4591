//! Reads the source files of the product, what they import, and the order that a file's
//! documentation lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{
    Attribute, Item, ItemUse, UseTree,
    visit::{self, Visit},
};

/// A source file of the product.
pub struct Source {
    /// Its path below `src/`.
    pub path: String,
    /// Its module path without `crate`.
    pub module: Vec<String>,
    pub text: String,
    pub ast: syn::File,
}

impl Source {
    pub fn is_test(&self) -> bool {
        self.path.contains("tests")
            || self.path.starts_with("testing/")
            || self.path.contains("fuzz")
    }

    /// Returns the folder or the file right below `src/`.
    pub fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
}

pub fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files(&src, "rs", &mut paths);
    let sources = paths.into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path
            .strip_prefix(&src)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let parts = stem.split('/').filter(|part| *part != "lib");
        Source {
            module: parts.map(str::to_owned).collect(),
            ast: syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}")),
            path,
            text,
        }
    });
    sources.collect()
}

pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let cfg = attribute.path().is_ident("cfg");
        let tokens = attribute
            .meta
            .require_list()
            .map(|list| list.tokens.to_string());
        attribute.path().is_ident("test")
            || cfg && tokens.is_ok_and(|it| it.contains("test") && !it.contains("not"))
    })
}

/// Returns the tokens of a macro, those in brackets too.
pub fn tokens(stream: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in stream {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                found.push(open.to_owned());
                found.extend(tokens(group.stream()));
                found.push(close.to_owned());
            }
            other => found.push(other.to_string()),
        }
    }
    found
}

/// Returns the names in the first column of the table that a file's documentation has, highest
/// first: an entry may use the ones behind it, in its own row and below.
pub fn order(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! |"));
    let cells = rows.filter_map(|row| row.split('|').next());
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

/// Every path that begins with `crate`, `super` or `self`, made absolute.
pub struct Paths<'a> {
    module: &'a [String],
    is_folder: bool,
    found: BTreeSet<Vec<String>>,
}

impl Paths<'_> {
    pub fn of(source: &Source) -> BTreeSet<Vec<String>> {
        let mut paths = Paths {
            module: &source.module,
            is_folder: source.path.ends_with("mod.rs"),
            found: BTreeSet::new(),
        };
        paths.visit_file(&source.ast);
        paths.found
    }

    fn note(&mut self, path: &[String]) {
        let mut base = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self") => self.module.to_vec(),
            Some("super") => self.module[..self.module.len().saturating_sub(1)].to_vec(),
            _ => return,
        };
        for part in &path[1..] {
            if part == "super" {
                base.pop();
            } else {
                base.push(part.clone());
            }
        }
        self.found.insert(base);
    }

    fn note_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.note_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.note(&with(name.ident.to_string())),
            UseTree::Rename(name) => self.note(&with(name.ident.to_string())),
            UseTree::Glob(_) => self.note(before),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(before, tree);
                }
            }
        }
    }
}

impl<'a> Visit<'a> for Paths<'_> {
    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Mod(it) => &it.attrs,
            Item::Fn(it) => &it.attrs,
            Item::Use(it) => &it.attrs,
            Item::Impl(it) => &it.attrs,
            _ => return visit::visit_item(self, item),
        };
        // What a file re-exports or has in itself is below it.
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let re_export = !matches!(item.vis, syn::Visibility::Inherited);
        if !(re_export && self.is_folder) {
            self.note_tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let parts = path.segments.iter().map(|part| part.ident.to_string());
        self.note(&parts.collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    /// What stands in a macro is no tree but tokens: `crate`, `:`, `:`, a name, and so on.
    fn visit_macro(&mut self, item: &'a syn::Macro) {
        let tokens = tokens(item.tokens.clone());
        let mut at = 0;
        while let Some(first) = tokens.get(at) {
            let mut path = vec![first.clone()];
            at += 1;
            while let [one, two, name, ..] = &tokens[at..]
                && (one == ":" && two == ":")
            {
                path.push(name.clone());
                at += 3;
            }
            if path.len() > 1 {
                self.note(&path);
            }
        }
        visit::visit_macro(self, item);
    }
}

/// Finds the file that a path leads to: the deepest module, and where a folder only re-exports a
/// name, the file that has it.
pub fn file_of(path: &[String], files: &BTreeMap<Vec<String>, &Source>) -> Option<Vec<String>> {
    let mut at: Vec<String> = Vec::new();
    for part in path {
        let next = [at.as_slice(), std::slice::from_ref(part)].concat();
        if files.contains_key(&next) {
            at = next;
            continue;
        }
        let re_exported = files.get(&at).into_iter().flat_map(|it| re_exports(it));
        let from = re_exported
            .filter(|(name, _)| name == part)
            .map(|(_, from)| from);
        return from
            .map(|from| [at.clone(), from].concat())
            .find(|from| files.contains_key(from))
            .or(Some(at));
    }
    Some(at)
}

/// Returns the names that a file re-exports from its own modules, and from which.
fn re_exports(source: &Source) -> Vec<(String, Vec<String>)> {
    fn walk(before: &[String], tree: &UseTree, found: &mut Vec<(String, Vec<String>)>) {
        match tree {
            UseTree::Path(path) => {
                let before = [before, &[path.ident.to_string()]].concat();
                walk(&before, &path.tree, found);
            }
            UseTree::Name(name) => found.push((name.ident.to_string(), before.to_vec())),
            UseTree::Group(group) => {
                for tree in &group.items {
                    walk(before, tree, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for item in &source.ast.items {
        if let Item::Use(item) = item {
            walk(&[], &item.tree, &mut found);
        }
    }
    for (_, from) in &mut found {
        from.retain(|part| part != "self");
    }
    found
}
