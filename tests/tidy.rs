//! Reads the source tree and refuses what the rules of `docs/contributing.md` refuse: imports and
//! calls upward, circles, types of one name, long files and functions, banned words, and `Debug` in
//! what is stored or sent.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a tree that cannot be read is a failure"
)]

#[path = "tidy/reading.rs"]
mod reading;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use syn::{
    Expr, ImplItem, Item, ItemImpl, Type,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use reading::{Paths, Source, file_of, files, is_for_tests, order, root, sources, tokens};

/// Maximum number of lines of a product file.
const FILE_LINES_MAX: usize = 500;

/// Maximum number of lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

/// Product files that are longer, and why.
const LONG_FILES: [(&str, &str); 1] = [(
    "crypto/store/crypto_store.rs",
    "one trait of matrix-sdk-crypto, in one impl",
)];

/// Functions that are longer, and why.
const LONG_FUNCTIONS: [(&str, &str, &str); 4] = [
    (
        "engine/conversations/effects.rs",
        "perform_effect_of",
        "one match over all effects",
    ),
    (
        "engine/conversations/forward.rs",
        "forward_event",
        "the steps of one message, read downward",
    ),
    (
        "engine/introductions/admission.rs",
        "ask_directory",
        "one match over all verdicts",
    ),
    (
        "introduction/notice.rs",
        "plain",
        "one match over all notices",
    ),
];

/// Type names that several folders may use, and names that mean two things, and why.
const SHARED_NAMES: [(&str, &str); 7] = [
    ("Command", "what an admin types, and what a person types"),
    ("Decision", "one for each decider"),
    ("Effect", "one for each decider"),
    ("Input", "one for each decider"),
    ("Inner", "what a handle that is cheap to clone points to"),
    ("Options", "one for each command"),
    ("State", "one for each decider"),
];

/// Macros that define a type.
const DEFINING: [&str; 2] = ["table", "kind_of_user"];

/// Words that are not used in comments and documents, and what to say.
const BANNED: [(&str, &str); 5] = [
    ("whoever", "name the person"),
    ("for ever", "forever, without limit, permanently"),
    ("any more", "no longer"),
    ("made sure of", "name what is done"),
    ("is said to be", "say what it is"),
];

fn place(order: &[String], name: &str) -> Option<usize> {
    order.iter().position(|it| it == name)
}

fn refuse(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}\n", found.join("\n  "));
}

#[test]
fn folders_import_downward_only() {
    let order = order(&fs::read_to_string(root().join("src/lib.rs")).unwrap());
    assert!(order.len() > 10, "{order:?}");
    let mut upward = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let Some(own) = place(&order, source.room()) else {
            continue;
        };
        for path in Paths::of(source) {
            let other = path.first().and_then(|name| place(&order, name));
            if other.is_some_and(|other| other < own) {
                upward.push(format!("src/{} imports {}", source.path, path.join("::")));
            }
        }
    }
    refuse("imports upward, by the order in src/lib.rs", &upward);
}

/// The fuzz targets are a crate of their own, which names the folders that it compiles.
#[test]
fn the_fuzz_crate_has_what_its_folders_import() {
    let crate_file = fs::read_to_string(root().join("fuzz/src/lib.rs")).unwrap();
    let parsed = syn::parse_file(&crate_file).unwrap();
    let modules = parsed.items.iter().filter_map(|item| match item {
        Item::Mod(it) => Some(it.ident.to_string()),
        _ => None,
    });
    let modules: BTreeSet<String> = modules.collect();
    assert!(modules.contains("relay"), "{modules:?}");
    let mut missing = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if !modules.contains(source.room()) {
            continue;
        }
        for path in Paths::of(source) {
            let Some(other) = path.first().filter(|other| is_module(other)) else {
                continue;
            };
            if !modules.contains(other) {
                missing.push(format!("src/{} imports {}", source.path, path.join("::")));
            }
        }
    }
    refuse("not in fuzz/src/lib.rs", &missing);
}

/// Returns whether there is such a folder or file right below `src/`.
fn is_module(name: &str) -> bool {
    let src = root().join("src");
    src.join(name).is_dir() || src.join(format!("{name}.rs")).is_file()
}

#[test]
fn the_engine_imports_and_calls_downward_only() {
    let order = order(&fs::read_to_string(root().join("src/engine/mod.rs")).unwrap());
    assert!(order.len() > 10, "{order:?}");
    let sources: Vec<_> = sources().into_iter().filter(|it| !it.is_test()).collect();
    let engine: Vec<_> = sources
        .iter()
        .filter(|source| source.room() == "engine" && source.module.len() > 1)
        .collect();
    let mut missing = BTreeSet::new();
    let mut methods: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for source in &engine {
        let Some(own) = place(&order, &source.module[1]) else {
            missing.insert(source.module[1].clone());
            continue;
        };
        for name in methods_of_the_engine(&source.ast) {
            methods.entry(name).or_default().insert(own);
        }
    }
    assert!(
        missing.is_empty(),
        "not in the table of src/engine/mod.rs: {missing:?}"
    );
    let mut upward = Vec::new();
    for source in &engine {
        let own = place(&order, &source.module[1]).unwrap();
        for path in Paths::of(source) {
            let other = path.get(1).filter(|_| path[0] == "engine");
            if other
                .and_then(|it| place(&order, it))
                .is_some_and(|other| other < own)
            {
                upward.push(format!("src/{} imports {}", source.path, path.join("::")));
            }
        }
        let mut calls = Calls::default();
        calls.visit_file(&source.ast);
        for name in calls.names {
            let defined = methods.get(&name).into_iter().flatten();
            if defined.clone().count() > 0 && defined.clone().all(|it| *it < own) {
                let by: Vec<_> = defined.map(|it| order[*it].as_str()).collect();
                upward.push(format!(
                    "src/{} calls {name} of {}",
                    source.path,
                    by.join(", ")
                ));
            }
        }
    }
    refuse(
        "imports and calls upward, by the order in src/engine/mod.rs",
        &upward,
    );
}

/// Methods of `Engine`, `Room` and `RoomActor` that a file has.
fn methods_of_the_engine(ast: &syn::File) -> Vec<String> {
    let impls = ast.items.iter().filter_map(|item| match item {
        Item::Impl(it) if it.trait_.is_none() => Some(it),
        _ => None,
    });
    let ours = impls.filter(|it| is_of_the_engine(it));
    let items = ours.flat_map(|it| &it.items).filter_map(|item| match item {
        ImplItem::Fn(it) => Some(it.sig.ident.to_string()),
        _ => None,
    });
    items.collect()
}

fn is_of_the_engine(item: &ItemImpl) -> bool {
    matches!(name_of(item).as_str(), "Engine" | "Room" | "RoomActor")
}

fn name_of(item: &ItemImpl) -> String {
    match &*item.self_ty {
        Type::Path(path) => path.path.segments.last().unwrap().ident.to_string(),
        _ => String::new(),
    }
}

/// The methods that are called on an engine or a room.
#[derive(Default)]
struct Calls {
    names: BTreeSet<String>,
    /// Whether `self` is one of them.
    on_self: bool,
}

impl<'a> Visit<'a> for Calls {
    fn visit_item_impl(&mut self, item: &'a ItemImpl) {
        self.on_self = is_of_the_engine(item);
        visit::visit_item_impl(self, item);
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        let receiver = match &*call.receiver {
            Expr::Path(path) => path.path.segments.last().map(|it| it.ident.to_string()),
            Expr::Field(field) => match &field.member {
                syn::Member::Named(name) => Some(name.to_string()),
                syn::Member::Unnamed(_) => None,
            },
            _ => None,
        };
        let is_ours = match receiver.as_deref() {
            Some("self") => self.on_self,
            Some("engine" | "room" | "actor") => true,
            _ => false,
        };
        if is_ours {
            self.names.insert(call.method.to_string());
        }
        visit::visit_expr_method_call(self, call);
    }

    /// What stands in a macro, such as `tokio::select!`, is no tree but tokens.
    fn visit_macro(&mut self, item: &'a syn::Macro) {
        for call in tokens(item.tokens.clone()).windows(4) {
            let is_ours = match call[0].as_str() {
                "self" => self.on_self,
                receiver => matches!(receiver, "engine" | "room" | "actor"),
            };
            if is_ours && call[1] == "." && call[3] == "(" {
                self.names.insert(call[2].clone());
            }
        }
    }
}

#[test]
fn files_import_each_other_in_no_circle() {
    let sources: Vec<_> = sources().into_iter().filter(|it| !it.is_test()).collect();
    let files: BTreeMap<Vec<String>, &Source> =
        sources.iter().map(|it| (it.module.clone(), it)).collect();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for source in &sources {
        for path in Paths::of(source) {
            let Some(file) = file_of(&path, &files) else {
                continue;
            };
            // A file and its own modules belong together.
            if !file.starts_with(&source.module) && !source.module.starts_with(&file) {
                edges.entry(source.module.clone()).or_default().insert(file);
            }
        }
    }
    let mut circles = BTreeSet::new();
    for start in edges.keys() {
        if let Some(mut circle) = way_back(start, &edges) {
            circle.sort();
            let names: Vec<_> = circle.iter().map(|it| it.join("::")).collect();
            circles.insert(names.join(" ⇄ "));
        }
    }
    refuse(
        "circles of imports",
        &circles.into_iter().collect::<Vec<_>>(),
    );
}

/// Returns the shortest way from a file back to itself.
fn way_back(
    start: &Vec<String>,
    edges: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
) -> Option<Vec<Vec<String>>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut further = Vec::new();
        for way in ways {
            for next in edges.get(way.last()?).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    further.push([way.as_slice(), std::slice::from_ref(next)].concat());
                }
            }
        }
        ways = further;
    }
    None
}

/// A newcomer follows these paths from file to file.
#[test]
fn the_paths_through_the_engine_name_functions_that_exist() {
    let engine = root().join("src/engine");
    let text = fs::read_to_string(engine.join("mod.rs")).unwrap();
    let (_, text) = text.split_once("# The path of one message").unwrap();
    let (text, _) = text.split_once("# What a crash does").unwrap();
    let (mut source, mut at) = (String::new(), String::new());
    let (mut functions, mut wrong) = (0, Vec::new());
    for span in text.split('`').skip(1).step_by(2) {
        let file = match span {
            _ if span.contains("crate::") || span.starts_with("Engine::") => continue,
            _ if span.ends_with(".rs") => root().join("src").join(span),
            _ => engine.join(format!("{}.rs", span.replace("::", "/"))),
        };
        if file.is_file() {
            (source, at) = (fs::read_to_string(file).unwrap(), span.to_owned());
        } else if source.contains(&format!("fn {span}(")) {
            functions += 1;
        } else {
            wrong.push(format!(
                "`{span}` is neither a file nor a function of `{at}`"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(functions >= 15, "only {functions} functions were found");
}

#[test]
fn a_type_has_its_methods_in_its_own_folder_and_its_name_for_itself() {
    let sources: Vec<_> = sources().into_iter().filter(|it| !it.is_test()).collect();
    let mut defined: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in &sources {
        for item in &source.ast.items {
            let name = match item {
                Item::Struct(it) if !is_for_tests(&it.attrs) => &it.ident,
                Item::Enum(it) if !is_for_tests(&it.attrs) => &it.ident,
                Item::Trait(it) if !is_for_tests(&it.attrs) => &it.ident,
                Item::Macro(it) if DEFINING.iter().any(|name| it.mac.path.is_ident(name)) => {
                    defined
                        .entry(defined_by(&it.mac))
                        .or_default()
                        .insert(&source.path);
                    continue;
                }
                _ => continue,
            };
            defined
                .entry(name.to_string())
                .or_default()
                .insert(&source.path);
        }
    }
    let mut wrong = Vec::new();
    for (name, _) in SHARED_NAMES {
        if defined.get(name).is_none_or(|paths| paths.len() < 2) {
            wrong.push(format!("{name} needs no exception"));
        }
    }
    for (name, paths) in &defined {
        if paths.len() > 1 && !SHARED_NAMES.iter().any(|(shared, _)| shared == name) {
            wrong.push(format!("{name} is defined in {paths:?}"));
        }
    }
    for source in &sources {
        for item in &source.ast.items {
            if let Item::Impl(it) = item
                && it.trait_.is_none()
                && let Some(paths) = defined.get(&name_of(it))
                && !paths
                    .iter()
                    .any(|path| path.split('/').next() == source.path.split('/').next())
            {
                wrong.push(format!(
                    "src/{} has methods of {}",
                    source.path,
                    name_of(it)
                ));
            }
        }
    }
    refuse("types", &wrong);
}

/// Returns the name of the type that a macro defines: the first word behind its documentation.
fn defined_by(item: &syn::Macro) -> String {
    let tokens = tokens(item.tokens.clone());
    let documented = tokens
        .windows(2)
        .find(|pair| pair[0] == "]" && pair[1] != "#");
    documented.map(|pair| pair[1].clone()).unwrap()
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    let mut unused: BTreeSet<&str> = LONG_FILES.iter().map(|(path, _)| *path).collect();
    unused.extend(LONG_FUNCTIONS.iter().map(|(_, name, _)| name));
    for source in sources().iter().filter(|source| !source.is_test()) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX && !unused.remove(source.path.as_str()) {
            long.push(format!("src/{} has {lines} lines", source.path));
        }
        let mut functions = Functions(Vec::new());
        functions.visit_file(&source.ast);
        for (name, lines) in functions.0 {
            let excepted = LONG_FUNCTIONS
                .iter()
                .any(|(path, function, _)| *path == source.path && *function == name);
            if lines > FUNCTION_LINES_MAX && !(excepted && unused.remove(name.as_str())) {
                long.push(format!("src/{}: {name} has {lines} lines", source.path));
            }
        }
    }
    long.extend(
        unused
            .iter()
            .map(|name| format!("{name} needs no exception")),
    );
    refuse("too long", &long);
}

/// Functions, and how many lines each has.
struct Functions(Vec<(String, usize)>);

impl Functions {
    fn note(&mut self, name: &syn::Ident, block: &syn::Block) {
        let lines = block.span().end().line - name.span().start().line + 1;
        self.0.push((name.to_string(), lines));
    }
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.note(&item.sig.ident, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.note(&item.sig.ident, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.note(&item.sig.ident, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn comments_and_documents_use_no_banned_word() {
    let mut paths = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    files(&root().join("docs"), "md", &mut paths);
    files(&root().join("src"), "rs", &mut paths);
    files(&root().join("tests/harness"), "rs", &mut paths);
    files(&root().join("tests/fake-homeserver"), "rs", &mut paths);
    let mut found = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let prose = path.extension().is_some_and(|it| it == "md");
        for (number, line) in paragraphs(&text, prose) {
            for (word, better) in BANNED.iter().filter(|(word, _)| contains_word(&line, word)) {
                let path = path.strip_prefix(root()).unwrap().display();
                found.push(format!("{path}:{number}: \"{word}\"; better: {better}"));
            }
        }
    }
    refuse("banned words", &found);
}

/// Returns what is said in a document line by line, and in comments of several lines together, in
/// lower case, with the number of the first line.
fn paragraphs(text: &str, prose: bool) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in text.lines().enumerate() {
        let said = match line.trim_start().strip_prefix("//") {
            _ if prose => line,
            Some(comment) => comment.trim_start_matches(['/', '!']).trim(),
            None => {
                goes_on = false;
                continue;
            }
        };
        match found.last_mut().filter(|_| goes_on && !prose) {
            Some((_, before)) => *before += &format!(" {}", said.to_lowercase()),
            None => found.push((number + 1, said.to_lowercase())),
        }
        goes_on = true;
    }
    found
}

/// Returns `true` if a line has these words, and not only the beginning of longer ones.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let next = line[at + word.len()..].chars().next();
        !next.is_some_and(char::is_alphabetic)
    })
}

/// A name that `Debug` gives changes with the name in the code: nothing that is stored or sent may
/// be made of it. Logs and the words of errors may.
#[test]
fn nothing_that_is_stored_or_sent_is_formatted_with_debug() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let mut texts = DebugTexts(Vec::new());
        texts.visit_file(&source.ast);
        let texts = texts.0.into_iter();
        found.extend(texts.map(|(line, text)| format!("src/{}:{line}: {text}", source.path)));
    }
    refuse("Debug in a text", &found);
}

/// Texts that are made with `Debug`, with their lines.
struct DebugTexts(Vec<(usize, String)>);

impl<'a> Visit<'a> for DebugTexts {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        let name = item.path.segments.last().unwrap();
        let is_text = ["format", "format_args", "write", "writeln"]
            .iter()
            .any(|it| name.ident == it);
        let texts = tokens(item.tokens.clone());
        let text = texts
            .iter()
            .find(|it| it.contains(":?}") || it.contains(":#?}"));
        if let Some(text) = text.filter(|_| is_text) {
            self.0.push((name.ident.span().start().line, text.clone()));
        }
    }
}
