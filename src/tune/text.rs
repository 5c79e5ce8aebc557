//! Small texts of /proc and /sys. What is missing, unreadable or oddly written is `None`:
//! unknown, never a failure.

use std::fs;
use std::path::Path;

/// A file's text without surrounding white space; empty counts as unknown.
pub(super) fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn number(path: &Path) -> Option<u64> {
    read(path)?.parse().ok()
}

/// The choice in brackets of a text like `always [madvise] never`; a text of one word
/// without brackets is that word.
pub(super) fn chosen(text: &str) -> Option<String> {
    let bracketed = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    let only = || text.split_whitespace().next().filter(|word| *word == text.trim());
    bracketed.or_else(only).map(str::to_owned)
}

/// All choices of such a text, without brackets.
pub(super) fn choices(text: &str) -> Vec<String> {
    text.split_whitespace().map(|word| word.trim_matches(['[', ']']).to_owned()).collect()
}

/// A list of CPUs as the kernel writes it (`0-3,8`); `None` when it is not one.
pub(super) fn cpu_list(text: &str) -> Option<Vec<usize>> {
    // More CPUs than Linux can have: a made-up range must not fill memory.
    const MOST: usize = 8192;
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Numbers separated by white space, all of them or none.
pub(super) fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_in_brackets() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("none").as_deref(), Some("none"));
        assert_eq!(chosen("always madvise"), None);
        assert_eq!(chosen(""), None);
        assert_eq!(choices("[none] mq-deadline"), ["none", "mq-deadline"]);
    }

    #[test]
    fn cpu_lists_are_ranges() {
        assert_eq!(cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        for odd in ["", "x", "3-1", "0-99999999", "1,,2"] {
            assert_eq!(cpu_list(odd), None, "{odd}");
        }
    }
}
