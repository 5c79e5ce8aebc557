//! Every option of the table is read by the code that it is documented for:
//! `log.segment.delete.delay.ms` once was not.

use std::fs;
use std::path::{Path, PathBuf};

/// Options whose own value needs no reader, and why.
const UNREAD: &[(&str, &str)] = &[
    ("listener_security_protocol_map", "the listeners are made by it"),
    ("log_flush_scheduler_interval_ms", "it is the value of log.flush.interval.ms where that is not given"),
];
/// Rules within `src/config` that others ask; the rest of that folder only holds the settings.
const RULES: &[&str] = &["cordoned.rs", "group_options.rs"];

#[test]
fn every_option_of_the_table_is_read_outside_of_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let config = root.join("config");
    let is_rule = |path: &PathBuf| RULES.iter().any(|rule| *path == config.join(rule));
    let (settings, others): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|path| path.starts_with(&config) && !is_rule(path));
    let fields = fields(&text_of(settings.iter().filter(|path| path.to_string_lossy().contains("config/options"))));
    assert!(fields.len() > 120, "the table is not where this test looks: {fields:?}");
    let code = text_of(others.iter());
    let unread: Vec<&String> = fields.iter().filter(|field| !is_read(&code, field)).collect();
    let excused: Vec<&str> = UNREAD.iter().map(|(field, _)| *field).collect();
    assert_eq!(unread, excused, "options that nothing outside of src/config reads");
}

/// The settings that rows of the table fill, by a macro (`integer!(Topic field)`) or by hand
/// (`config.field = ...`), sorted.
fn fields(table: &str) -> Vec<String> {
    let word =
        |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
    let by_macro = table.split("!(").skip(1).filter_map(|rest| {
        let inside = rest.split_once(')')?.0;
        let named = inside.split_once(',').map_or(inside, |(first, _)| first);
        let named = named.strip_prefix("Topic ").or(named.strip_prefix("Server ")).unwrap_or(named);
        (!named.contains(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_')).then(|| word(named))
    });
    let by_hand = ["config.", "c."].into_iter().flat_map(|of| {
        table.split(of).skip(1).filter_map(move |rest| {
            let field = word(rest);
            rest[field.len()..].trim_start().strip_prefix("= ").map(|_| field)
        })
    });
    let mut fields: Vec<String> = by_macro.chain(by_hand).filter(|field| field.len() > 1).collect();
    fields.sort();
    fields.dedup();
    fields
}

/// `.field`, or `field` in a pattern that takes a configuration apart.
fn is_read(code: &str, field: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    code.split(&format!(".{field}")).skip(1).any(ends)
}

fn text_of<'a>(files: impl Iterator<Item = &'a PathBuf>) -> String {
    files.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
