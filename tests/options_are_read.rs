//! Every option of the table is read by the code that it is documented for: `log.segment.delete.delay.ms` once was not.

use std::fs;
use std::path::{Path, PathBuf};

/// Options whose own value needs no reader, and why.
const UNREAD: &[(&str, &str)] =
    &[("log_flush_scheduler_interval_ms", "it is the value of log.flush.interval.ms where that is not given")];

#[test]
fn every_option_of_the_table_is_read_outside_of_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let (tables, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| path.starts_with(root.join("config")));
    let fields = fields(&text_of(tables.iter().filter(|path| path.to_string_lossy().contains("options"))));
    assert!(fields.len() > 40, "the table is not where this test looks: {fields:?}");
    let code = text_of(others.iter());
    let unread: Vec<&String> = fields.iter().filter(|field| !is_read(&code, field)).collect();
    let excused: Vec<&str> = UNREAD.iter().map(|(field, _)| *field).collect();
    assert_eq!(unread, excused, "options that nothing outside of src/config reads");
}

/// The settings named by `access: macro!(Topic field)` and its kin, sorted.
fn fields(table: &str) -> Vec<String> {
    let mut fields: Vec<String> = table
        .split("access: ")
        .skip(1)
        .filter_map(|rest| {
            let (before, inside) = rest.split_once(['(', '{'])?;
            let list = inside.split_once(')').map_or(inside, |(list, _)| list);
            let named = before.ends_with('!').then(|| list.split([' ', ',']).find(|word| word.contains('_')))?;
            named.map(|word| word.trim().to_owned())
        })
        .collect();
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
