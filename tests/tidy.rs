//! Holds the house in order: which layer may name which, where the operating system may be touched,
//! how long a file may be, and that a `mod.rs` only maps its folder. Each check is tried on a bad
//! example first, so that it can be seen to fail.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Which top-level modules a top-level module may name besides itself. `config` and `observe`
/// are leaves that all may.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &[]),
    ("observe", &[]),
    ("protocol", &["model"]),
    ("runtime", &["model"]),
    ("coordinator", &["model"]),
    ("groups", &["coordinator", "model"]),
    ("transactions", &["coordinator", "model"]),
    ("storage", &["model", "runtime"]),
    ("partition", &["model", "storage"]),
    ("cluster", &["model", "runtime", "storage", "partition"]),
    ("simulator", &["partition", "groups", "transactions", "coordinator", "cluster", "model"]),
    (
        "shard",
        &["client", "partition", "groups", "transactions", "coordinator", "cluster", "storage", "runtime", "model"],
    ),
    ("server", &["shard", "groups", "transactions", "cluster", "protocol", "runtime", "model"]),
    ("client", &["protocol", "runtime", "model"]),
    ("bench", &["client", "protocol", "runtime", "model"]),
    ("tune", &["runtime"]),
    ("monitor", &["console", "shard", "groups", "cluster", "runtime", "model"]),
    ("console", &["client", "runtime", "model"]),
    ("cli", &["monitor", "bench", "tune", "client", "server", "shard", "cluster", "storage", "runtime", "model"]),
];
const LEAVES: &[&str] = &["config", "observe"];
/// Items of one layer that another passes on by `pub use`, so that a third may name
/// them: where, and of which layer. Elsewhere it would be a way around the table above.
/// The list only gets shorter.
const PASSED_ON: &[(&str, &str)] = &[
    ("src/storage/files.rs", "runtime"),
    ("src/client/consumer/mod.rs", "protocol"),
    ("src/client/leader.rs", "protocol"),
];
const MAX_LINES: usize = 600;
/// Files that were longer when that became the bound, up to [`MAX_LINES_OF_LONG`].
/// The list only gets shorter.
const LONG: &[&str] = &[
    "src/cluster/metadata_store.rs",
    "src/cluster/node/tests.rs",
    "src/config/options.rs",
    "src/partition/leader.rs",
    "src/protocol/shapes.rs",
    "src/runtime/disk.rs",
    "src/server/connection.rs",
    "src/server/listener_tests.rs",
    "src/shard/fetchers/fetch_tests.rs",
    "src/simulator/replica.rs",
    "src/simulator/world.rs",
    "src/storage/behind.rs",
    "src/storage/compaction/clean.rs",
    "src/storage/tests.rs",
    "src/storage/tests/held.rs",
    "tests/fuzz/bodies.rs",
    "tests/tidy.rs",
];
const MAX_LINES_OF_LONG: usize = 800;
/// Of a comment; code has rustfmt's `max_width`.
const MAX_COMMENT_COLUMNS: usize = 100;

#[test]
fn layers_name_only_those_below_them() {
    assert_clean(check_layers);
}

#[test]
fn the_table_of_layers_allows_nothing_that_nobody_uses() {
    let used = in_the_house(|source| named_layers(source).into_iter().map(|(_, edge)| edge).collect());
    assert_eq!(unused_edges(LAYERS, &used.unwrap()), Findings::new());
}

#[test]
fn layers_are_not_passed_on() {
    assert_clean(check_passed_on);
    let places =
        in_the_house(|source| passed_on(source).into_iter().map(|(_, layer)| place(source.path, &layer)).collect());
    let places = places.unwrap();
    let gone: Vec<_> = PASSED_ON.iter().filter(|(path, layer)| !places.contains(&place(path, layer))).collect();
    assert!(gone.is_empty(), "to be taken off the list: {gone:?}");
}

#[test]
fn the_operating_system_is_touched_in_runtime_only() {
    assert_clean(check_runtime_only);
}

#[test]
fn threads_beside_the_shards_have_their_libraries_for_themselves() {
    assert_clean(check_beside);
}

#[test]
fn files_are_short() {
    assert_clean(check_length);
}

#[test]
fn comments_are_narrow() {
    assert_clean(check_comment_columns);
}

#[test]
fn long_files_are_on_the_list_only_while_they_are_long() {
    let lengths = in_the_house(|source| vec![format!("{} {}", source.path, source.text.lines().count() > MAX_LINES)]);
    let lengths = lengths.unwrap();
    let gone: Vec<_> = LONG.iter().filter(|path| !lengths.contains(&format!("{path} true"))).collect();
    assert!(gone.is_empty(), "to be taken off the list: {gone:?}");
}

#[test]
fn mod_files_only_map_their_folder() {
    assert_clean(check_mod_file);
}

/// One source file: its path from the root of the repository, with `/`, and its text.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
}

type Findings = Vec<String>;

fn assert_clean(check: fn(&Source) -> Findings) {
    let findings = in_the_house(check).unwrap_or_else(|e| vec![format!("the sources cannot be read: {e}")]);
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn in_the_house(check: fn(&Source) -> Findings) -> io::Result<Findings> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"].map(|folder| root.join(folder)) {
        if folder.exists() {
            collect(&folder, &mut files)?;
        }
    }
    assert!(files.len() > 20, "the sources are not where this test looks: {}", root.display());
    let mut findings = Vec::new();
    for file in files {
        let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        findings.extend(check(&Source { path: &path, text: &fs::read_to_string(&file)? }));
    }
    Ok(findings)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

// ---- the checks

fn check_layers(source: &Source) -> Findings {
    let Some((module, file_depth)) = module_of(source.path) else { return Vec::new() };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{}: module {module} has no place among the layers of tests/tidy.rs", source.path)];
    };
    let may = |other: &str| other == module || allowed.contains(&other) || LEAVES.contains(&other);
    let mut findings = Vec::new();
    for (line, named) in root_names(&tokens(source.text), file_depth) {
        if named == "*" || (is_layer(&named) && !may(&named)) {
            findings.push(format!("{}:{line}: {module} must not name {named}", source.path));
        }
    }
    findings
}

fn is_layer(name: &str) -> bool {
    LAYERS.iter().any(|(layer, _)| *layer == name)
}

/// The layers that a source names, each as an edge from its own, with the line.
fn named_layers(source: &Source) -> Vec<(usize, String)> {
    let Some((module, file_depth)) = module_of(source.path) else { return Vec::new() };
    let names = root_names(&tokens(source.text), file_depth).into_iter();
    names.filter(|(_, name)| is_layer(name)).map(|(line, name)| (line, edge(&module, &name))).collect()
}

fn edge(from: &str, to: &str) -> String {
    format!("{from} -> {to}")
}

fn unused_edges(layers: &[(&str, &[&str])], used: &[String]) -> Findings {
    let edges = layers.iter().flat_map(|(from, allowed)| allowed.iter().map(|to| edge(from, to)));
    edges.filter(|edge| !used.contains(edge)).collect()
}

fn check_passed_on(source: &Source) -> Findings {
    let others = passed_on(source).into_iter();
    let strays = others.filter(|(_, layer)| !PASSED_ON.contains(&(source.path, layer)));
    strays.map(|(line, layer)| format!("{}:{line}: items of {layer} are passed on", source.path)).collect()
}

fn place(path: &str, layer: &str) -> String {
    format!("{path} {layer}")
}

/// The layers other than its own of which a source has a `pub use`, beyond its own folder.
fn passed_on(source: &Source) -> Vec<(usize, String)> {
    let Some((module, file_depth)) = module_of(source.path) else { return Vec::new() };
    let tokens = tokens(source.text);
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "use") {
        let before =
            |steps: usize| index.checked_sub(steps).and_then(|i| tokens.get(i)).map_or("", |t| t.text.as_str());
        // `pub use` and `pub(crate) use`; what `pub(super)` shows stays in the layer.
        if before(1) != "pub" && !(before(1) == ")" && before(2) == "crate" && before(4) == "pub") {
            continue;
        }
        let item: Vec<Token> = tokens[index..].iter().take_while(|token| token.text != ";").cloned().collect();
        let names = root_names(&item, file_depth).into_iter().map(|(_, name)| name);
        found.extend(names.filter(|name| is_layer(name) && *name != module).map(|name| (token.line, name)));
    }
    found
}

fn check_runtime_only(source: &Source) -> Findings {
    if !source.path.starts_with("src/") || source.path.starts_with("src/runtime/") {
        return Vec::new();
    }
    let tokens = tokens(source.text);
    let mut findings = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let next = |offset: usize| tokens.get(index + offset).map_or("", |token| token.text.as_str());
        let forbidden = match token.text.as_str() {
            "glommio" => Some("glommio"),
            // A local variable may be called so; a path or an import is the crate.
            "libc" if next(1) == "::" || index > 0 && tokens[index - 1].text == "use" => Some("libc"),
            "Instant" | "SystemTime" if next(1) == "::" && next(2) == "now" => Some("the clock"),
            "unsafe" | "unsafe_code" => Some("unsafe"),
            _ => None,
        };
        findings.extend(forbidden.map(|what| format!("{}:{}: {what} outside src/runtime", source.path, token.line)));
    }
    findings
}

/// Crates that would block a shard or bring it another event loop, and the
/// folders that may name them.
const BESIDE: &[(&str, &[&str])] = &[
    ("tokio", &["src/cluster/store/zookeeper/", "src/monitor/"]),
    ("zookeeper_client", &["src/cluster/store/zookeeper/"]),
    ("axum", &["src/monitor/"]),
    ("hyper", &["src/monitor/"]),
    ("hyper_util", &["src/monitor/"]),
    ("prometheus_client", &["src/monitor/"]),
];

fn check_beside(source: &Source) -> Findings {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let home = |token: &Token| BESIDE.iter().find(|(name, _)| *name == token.text).map(|(_, folders)| *folders);
    let strays = |folders: &[&str]| folders.iter().all(|folder| !source.path.starts_with(folder));
    let finding = |token: &Token| {
        let folders = home(token).filter(|folders| strays(folders))?;
        Some(format!("{}:{}: {} outside {}", source.path, token.line, token.text, folders.join(" and ")))
    };
    tokens(source.text).iter().filter_map(finding).collect()
}

fn check_length(source: &Source) -> Findings {
    let lines = source.text.lines().count();
    let most = if LONG.contains(&source.path) { MAX_LINES_OF_LONG } else { MAX_LINES };
    (lines > most).then(|| format!("{}: {lines} lines; {most} at most", source.path)).into_iter().collect()
}

fn check_comment_columns(source: &Source) -> Findings {
    let comments = (1..).zip(source.text.lines()).filter(|(_, line)| line.trim_start().starts_with("//"));
    let wide = comments.filter(|(_, line)| line.chars().count() > MAX_COMMENT_COLUMNS);
    wide.map(|(number, _)| format!("{}:{number}: a comment beyond column {MAX_COMMENT_COLUMNS}", source.path)).collect()
}

fn check_mod_file(source: &Source) -> Findings {
    if !source.path.starts_with("src/") || !source.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut item: Vec<Token> = Vec::new();
    for token in tokens(source.text) {
        let ends = token.text == ";";
        item.push(token);
        if ends {
            findings.extend(foreign_item(&item));
            item.clear();
        }
    }
    findings.extend(foreign_item(&item));
    // The first shows the way to the others.
    findings.first().map(|line| format!("{}:{line}: code in a mod.rs", source.path)).into_iter().collect()
}

/// The line of an item that is neither `mod x;` nor a re-export.
fn foreign_item(item: &[Token]) -> Option<usize> {
    let mut words: Vec<&str> = item.iter().map(|token| token.text.as_str()).collect();
    // Attributes, inner ones too.
    while words.first() == Some(&"#") {
        let mut depth = 0;
        let end = words.iter().position(|word| {
            depth += i32::from(*word == "[") - i32::from(*word == "]");
            *word == "]" && depth == 0
        });
        words.drain(..=end.unwrap_or(words.len() - 1));
    }
    let public = words.first() == Some(&"pub");
    if public {
        words.remove(0);
        if words.first() == Some(&"(") {
            let end = words.iter().position(|word| *word == ")").unwrap_or(0);
            words.drain(..=end);
        }
    }
    let maps = match words.as_slice() {
        [] => true,
        ["mod", _, ";"] => true,
        ["use", rest @ ..] => public && rest.last() == Some(&";") && !rest.contains(&"fn"),
        _ => false,
    };
    if maps { None } else { item.first().map(|token| token.line) }
}

// ---- just enough of Rust's syntax

#[derive(Clone, Debug, PartialEq)]
struct Token {
    /// An identifier, `::`, or one other character.
    text: String,
    /// 1-based
    line: usize,
}

/// The top-level module a file belongs to and the depth of its path (`crate::a::b` is 2); `None`
/// for `lib.rs`, `main.rs` and everything outside `src`.
fn module_of(path: &str) -> Option<(String, usize)> {
    let inner = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    if matches!(inner, "lib" | "main") {
        return None;
    }
    let parts: Vec<&str> = inner.split('/').collect();
    let depth = if parts.last() == Some(&"mod") { parts.len() - 1 } else { parts.len() };
    Some((parts[0].to_owned(), depth))
}

/// Comments, strings and characters are left out; lifetimes lose their name.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut index, mut line) = (Vec::new(), 0, 1);
    while index < chars.len() {
        let begin = index;
        let c = at(index);
        if c == '/' && at(index + 1) == '/' {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if c == '/' && at(index + 1) == '*' {
            index = after_block_comment(&chars, index);
        } else if let Some(end) = after_string(&chars, index) {
            index = end;
        } else if c == '\'' {
            // 'x' or '\n' is a character, 'a without a closing quote a lifetime.
            let escaped = at(index + 1) == '\\';
            let close = (index + 2 + usize::from(escaped)..chars.len()).find(|i| at(*i) == '\'');
            index = match close {
                Some(end) if escaped || end == index + 2 => end + 1,
                _ => index + 1 + chars[index + 1..].iter().take_while(|c| is_word(**c)).count(),
            };
        } else if is_word(c) {
            while is_word(at(index)) {
                index += 1;
            }
            tokens.push(Token { text: chars[begin..index].iter().collect(), line });
        } else {
            let double = c == ':' && at(index + 1) == ':';
            index += 1 + usize::from(double);
            if !c.is_whitespace() {
                tokens.push(Token { text: if double { "::".into() } else { c.into() }, line });
            }
        }
        line += chars[begin..index.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn after_block_comment(chars: &[char], begin: usize) -> usize {
    let (mut depth, mut index) = (0, begin);
    while index < chars.len() {
        match chars.get(index..index + 2) {
            Some(['/', '*']) => (depth, index) = (depth + 1, index + 2),
            Some(['*', '/']) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

/// Where the string literal (plain, byte, C or raw) that begins at `begin`
/// ends; `None`: there is none.
fn after_string(chars: &[char], begin: usize) -> Option<usize> {
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut index = begin;
    if matches!(at(index), 'b' | 'c') {
        index += 1;
    }
    let raw = at(index) == 'r';
    index += usize::from(raw);
    let hashes = if raw { chars[index..].iter().take_while(|c| **c == '#').count() } else { 0 };
    index += hashes;
    if at(index) != '"' {
        return None;
    }
    index += 1;
    while index < chars.len() {
        match at(index) {
            '\\' if !raw => index += 2,
            '"' if chars[index + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes => {
                return Some(index + 1 + hashes);
            }
            _ => index += 1,
        }
    }
    Some(chars.len())
}

/// Every name directly under the crate's root that the tokens name by `crate::` or by enough
/// `super::`, with its line; `*` for a glob over the root.
fn root_names(tokens: &[Token], file_depth: usize) -> Vec<(usize, String)> {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let (mut names, mut blocks, mut index) = (Vec::new(), Vec::new(), 0);
    while index < tokens.len() {
        let inline_depth = blocks.iter().filter(|is_module| **is_module).count();
        match text(index) {
            // A block belongs to a module when `mod name` stands before it.
            "{" => blocks.push(index >= 2 && text(index - 2) == "mod"),
            "}" => drop(blocks.pop()),
            "crate" if text(index + 1) == "::" => names_at(tokens, index + 2, &mut names),
            "crate" if text(index + 1) == "as" => names.push((tokens[index].line, "*".to_owned())),
            "super" if index == 0 || text(index - 1) != "::" => {
                let mut steps = 1;
                while text(index + 1) == "::" && text(index + 2) == "super" {
                    steps += 1;
                    index += 2;
                }
                if steps >= file_depth + inline_depth && text(index + 1) == "::" {
                    names_at(tokens, index + 2, &mut names);
                }
            }
            _ => {}
        }
        index += 1;
    }
    names
}

/// The name at `index`, or the first names of each branch of the group `{..}` there.
fn names_at(tokens: &[Token], index: usize, names: &mut Vec<(usize, String)>) {
    let Some(first) = tokens.get(index) else { return };
    if first.text != "{" {
        names.push((first.line, first.text.clone()));
        return;
    }
    let mut depth = 0;
    for (position, token) in tokens.iter().enumerate().skip(index) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
        let begins = depth == 1 && matches!(tokens[position - 1].text.as_str(), "{" | ",") && position > index;
        if begins {
            names.push((token.line, token.text.clone()));
        }
    }
}

// ---- the checks see what they are for

fn findings(check: fn(&Source) -> Findings, path: &str, text: &str) -> usize {
    check(&Source { path, text }).len()
}

#[test]
fn a_wrong_direction_is_seen_however_it_is_written() {
    let bad = |path, text| assert_eq!(findings(check_layers, path, text), 1, "{path}: {text}");
    bad("src/model/ids.rs", "use crate::storage::Log;");
    bad("src/model/ids.rs", "fn f() { crate::storage::open() }");
    bad("src/model/ids.rs", "use crate::{config::Kind, model::{ids, Offset}, storage::Log};");
    bad("src/model/ids.rs", "use crate::{\n    storage,\n};");
    bad("src/model/ids.rs", "use super::super::storage::Log;");
    bad("src/model/mod.rs", "use super::storage::Log;");
    bad("src/model/ids.rs", "mod tests { use super::super::super::storage::Log; }");
    bad("src/model/ids.rs", "use super::super::{model::Offset, storage::Log};");
    bad("src/model/ids.rs", "use crate::*;");
    bad("src/model/ids.rs", "use crate as root;");
    bad("src/storage/log.rs", "pub(in crate::shard) fn f() {}");
    bad("src/shard/state.rs", "use crate::server::serve;");
    bad("src/config/server.rs", "use crate::model::BrokerId;");
    bad("src/partition/leader/append.rs", "use crate::cluster::MetadataImage;");
    bad("src/novelty/mod.rs", "mod x;");
    assert_eq!(
        check_layers(&Source { path: "src/model/a.rs", text: "\n\nuse crate::shard::X;" }),
        ["src/model/a.rs:3: model must not name shard"]
    );
}

#[test]
fn a_right_direction_passes() {
    let good = |path, text| assert_eq!(findings(check_layers, path, text), 0, "{path}: {text}");
    good("src/model/ids.rs", "use crate::config::Kind; use super::ErrorCode; // crate::storage::Log");
    good("src/model/ids.rs", "const A: &str = \"crate::storage\"; /* use crate::shard; /* */ use crate::shard; */");
    good("src/model/ids.rs", "mod tests { use super::*; use super::super::ErrorCode; }");
    good("src/model/ids/storage.rs", "use super::super::storage;");
    good("src/model/ids.rs", "use super::storage; use self::storage::X; use other::{storage, crate_name};");
    good("src/model/ids.rs", "const R: &str = r#\"\"crate::storage\"#; const Q: char = '\"'; use crate::model::X;");
    good("src/storage/log.rs", "use crate::{model::{Offset, storage}, runtime::disk};");
    good("src/storage/log.rs", "fn f<'a>(x: &'a str) -> Box<dyn Fn() + 'a> { crate::runtime::go(x) }");
    good("src/main.rs", "fn main() { corelane::cli::main() }");
    good("tests/tidy.rs", "use crate::server;");
}

#[test]
fn an_edge_that_nobody_uses_is_seen() {
    let source =
        Source { path: "src/storage/log.rs", text: "use crate::{model::Offset, runtime};\nuse crate::storage::Log;" };
    let used: Vec<_> = named_layers(&source).into_iter().map(|(_, edge)| edge).collect();
    assert_eq!(used, ["storage -> model", "storage -> runtime", "storage -> storage"]);
    assert_eq!(unused_edges(&[("storage", &["model", "client", "runtime"])], &used), ["storage -> client"]);
}

#[test]
fn layers_passed_on_are_seen() {
    let bad = |text| assert_eq!(findings(check_passed_on, "src/shard/fetch.rs", text), 1, "{text}");
    bad("pub use crate::groups::api::*;");
    bad("pub(crate) use crate::{shard::State, storage::Log};");
    bad("pub use super::super::model::Offset;");
    let good = |text| assert_eq!(findings(check_passed_on, "src/shard/fetch.rs", text), 0, "{text}");
    good("use crate::groups::api; pub(super) use crate::groups::env; pub use crate::shard::state::State;");
    good("pub use super::state::State; pub use self::model::X; pub fn f() { use crate::model::Offset; }");
    assert_eq!(findings(check_passed_on, PASSED_ON[0].0, &format!("pub use crate::{}::X;", PASSED_ON[0].1)), 0);
}

#[test]
fn the_operating_system_is_seen_outside_runtime() {
    let bad = |text| assert_eq!(findings(check_runtime_only, "src/storage/log.rs", text), 1, "{text}");
    bad("use glommio::Task;");
    bad("fn f() { libc::fstat(0) }");
    bad("use libc as c;");
    bad("let t = std::time::Instant::now();");
    bad("let t = SystemTime :: now();");
    bad("fn f() { unsafe { g() } }");
    bad("#[allow(unsafe_code)] fn f() {}");
    bad("let s = \"it's\"; let c = '\\''; unsafe { g() }");
    let good = |path, text| assert_eq!(findings(check_runtime_only, path, text), 0, "{path}: {text}");
    good("src/runtime/disk.rs", "unsafe { libc::fstat(0) }");
    good("src/storage/log.rs", "//! glommio's unsafe libc:: calls\nuse std::time::Instant; let libc = clock::now();");
    good("tests/kill.rs", "unsafe { libc::kill(1, 9) }");
}

#[test]
fn libraries_of_threads_beside_the_shards_are_seen_elsewhere() {
    let path = "src/cluster/store/engine.rs";
    assert_eq!(
        findings(check_beside, path, "use tokio::sync::mpsc; use zookeeper_client::Client; use axum::Router;"),
        3
    );
    assert_eq!(findings(check_beside, path, "// tokio\nmod zookeeper;"), 0);
    assert_eq!(findings(check_beside, "src/cluster/store/zookeeper/control.rs", "use tokio::time;"), 0);
    assert_eq!(findings(check_beside, "src/monitor/http.rs", "use tokio::time; use hyper::server;"), 0);
    assert_eq!(findings(check_beside, "src/monitor/http.rs", "use zookeeper_client::Client;"), 1);
}

#[test]
fn long_files_are_seen() {
    assert_eq!(findings(check_length, "src/a.rs", &"x\n".repeat(MAX_LINES + 1)), 1);
    assert_eq!(findings(check_length, "src/a.rs", &"x\n".repeat(MAX_LINES)), 0);
    assert_eq!(findings(check_length, LONG[0], &"x\n".repeat(MAX_LINES_OF_LONG)), 0);
    assert_eq!(findings(check_length, LONG[0], &"x\n".repeat(MAX_LINES_OF_LONG + 1)), 1);
}

#[test]
fn wide_comments_are_seen() {
    let wide = |columns: usize, mark: &str| format!("fn f() {{}}\n{mark}{}\n", "µ".repeat(columns - mark.len()));
    for mark in ["// ", "    /// ", "//! "] {
        assert_eq!(findings(check_comment_columns, "src/a.rs", &wide(MAX_COMMENT_COLUMNS, mark)), 0);
        assert_eq!(findings(check_comment_columns, "src/a.rs", &wide(MAX_COMMENT_COLUMNS + 1, mark)), 1);
    }
    assert_eq!(findings(check_comment_columns, "src/a.rs", &wide(MAX_COMMENT_COLUMNS + 1, "let x = ")), 0);
}

#[test]
fn code_in_a_mod_file_is_seen() {
    let bad = |text| assert_eq!(findings(check_mod_file, "src/a/mod.rs", text), 1, "{text}");
    bad("mod x;\npub fn f() {}\n");
    bad("pub struct S;");
    bad("mod tests { }");
    bad("use x::Y;");
    bad("pub const A: u8 = 1;");
    bad("#[derive(Debug)] pub struct S;");
    bad("macro_rules! m { () => {} }");
    assert_eq!(
        check_mod_file(&Source { path: "src/a/mod.rs", text: "mod x;\n\nfn f() {}" }),
        ["src/a/mod.rs:3: code in a mod.rs"]
    );
    let good = |text| assert_eq!(findings(check_mod_file, "src/a/mod.rs", text), 0, "{text}");
    good("//! Docs { fn }.\n\nmod x;\npub mod y;\npub(crate) mod z;\n#[cfg(test)]\nmod tests;\n");
    good("#![allow(a, b[c])]\nmod x;\npub use x::{A, b::{C, d}};\npub(crate) use x::*;\n");
    assert_eq!(findings(check_mod_file, "src/a/other.rs", "fn f() {}"), 0);
}
