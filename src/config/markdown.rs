//! The option table for people: `docs/CONFIGURATION.md`
//! (`corelane options --markdown`) and the terminal.

use std::fmt::Write;

use super::foreign::{self, Verdict};
use super::{OPTIONS, group_options};

const INTRODUCTION: &str = "\
# Configuration

This page is generated from the option table in `src/config/` by `corelane options --markdown`; a test compares the two.

`corelane server FILE` reads a file in the syntax of Kafka's `server.properties` (Java properties). Without a file every
option has its default; `--override name=value` wins over the file. A wrong value stops the start with file, line, option,
value and bounds. Unknown options are warned about; so is every option of Kafka that Corelane does not honour, and those
that would be unsafe to ignore stop the start.

";

/// The whole page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str(
        "## Broker options\n\nThe fifth column names the option that overrides it for one topic, or one group.\n\n",
    );
    page.push_str(
        "| Option | Type | Default | Accepted | Topic or group | What it does |\n|---|---|---|---|---|---|\n",
    );
    for spec in OPTIONS {
        let mut names = code(spec.name);
        for alias in spec.aliases {
            let _ = write!(names, ", or {}", code(alias.name));
        }
        let group = group_options::of_broker(spec.name).map_or(String::new(), |name| code(name) + " (group)");
        let topic = spec.topic.map_or(group, |(name, bounds)| {
            let differs = (bounds != spec.bounds).then(|| format!(" ({bounds})")).filter(|text| text != " ()");
            code(name) + &differs.unwrap_or_default()
        });
        let default = code(spec.default);
        let _ = writeln!(page, "| {names} | {} | {default} | {} | {topic} | {} |", spec.kind, spec.bounds, spec.doc);
    }
    page.push_str("\n## Options that can be set while the broker runs\n\n");
    page.push_str(
        "`kafka-configs --entity-type brokers --alter --add-config NAME=VALUE` sets them, with `--entity-name ID` for one broker \
         or with `--entity-default` for all; `corelane config set --broker ID` does too. They last. A topic's own value wins over \
         the broker's, that over the default of all brokers, and that over the file.\n\n",
    );
    let dynamic = OPTIONS.iter().filter(|spec| spec.is_dynamic()).map(|spec| code(spec.name));
    let _ = writeln!(page, "{}", dynamic.collect::<Vec<_>>().join(", "));
    group_section(&mut page);
    page.push_str("\n## Topic options that are accepted without being honoured\n\n");
    page.push_str("They can be set where that changes nothing, so that tools which copy configurations work.\n\n");
    page.push_str("| Option | Type | Default | Why |\n|---|---|---|---|\n");
    for option in foreign::TOPIC {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            code(option.name),
            option.kind,
            code(option.default),
            option.remark()
        );
    }
    page.push_str("\n## Kafka's broker options that are not honoured\n\n");
    page.push_str("`*` stands for any rest. *Ignored*: a warning. *Refused*: the broker does not start.\n\n");
    page.push_str("| Option | What happens | Why |\n|---|---|---|\n");
    for (name, verdict) in foreign::BROKER {
        let (what, why) = match verdict {
            Verdict::Ignored(why) => ("ignored".to_owned(), why),
            Verdict::Refused(why) => ("refused".to_owned(), why),
            Verdict::Only("", why) => ("refused unless empty".to_owned(), why),
            Verdict::Only(value, why) => (format!("refused unless {}", code(value)), why),
        };
        let _ = writeln!(page, "| {} | {what} | {why} |", code(name));
    }
    page
}

fn group_section(page: &mut String) {
    page.push_str("\n## Group options\n\n");
    page.push_str(
        "Settings of single groups (KIP-848): `kafka-configs --entity-type groups --entity-name GROUP --alter --add-config NAME=VALUE` \
         sets them, and so does `corelane config set --group GROUP NAME=VALUE`, whether the group has members yet or not. They last, and \
         hold for members that are there too. A group without one follows the broker's option, where there is one. The default \
         is that of the broker's option.\n\n",
    );
    page.push_str(
        "| Option | Type | Default | Accepted | Broker's option | What it does |\n|---|---|---|---|---|---|\n",
    );
    for option in group_options::names().filter_map(group_options::explain) {
        let (name, default) = (code(&option.name), code(option.default.unwrap_or_default()));
        let broker = code(option.broker.unwrap_or_default());
        let _ = writeln!(
            page,
            "| {name} | {} | {default} | {} | {broker} | {} |",
            option.kind, option.accepted, option.doc
        );
    }
}

/// The honoured options, one paragraph each.
pub fn plain() -> String {
    let mut text = String::new();
    for spec in OPTIONS {
        let names: Vec<_> = std::iter::once(spec.name).chain(spec.aliases.iter().map(|alias| alias.name)).collect();
        let default = if spec.default.is_empty() { "none" } else { spec.default };
        let _ = write!(text, "{}\n    {}; default {default}", names.join(", "), spec.kind);
        let bounds = spec.bounds.to_string();
        if !bounds.is_empty() {
            let _ = write!(text, "; {bounds}");
        }
        if let Some((topic, _)) = spec.topic {
            let _ = write!(text, "; per topic: {topic}");
        }
        if let Some(group) = group_options::of_broker(spec.name) {
            let _ = write!(text, "; per group: {group}");
        }
        let _ = writeln!(text, "\n    {}", spec.doc);
    }
    text
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        let fresh = super::markdown();
        let first = page.lines().zip(fresh.lines()).find(|(old, new)| old != new);
        assert!(
            page == fresh,
            "run `corelane options --markdown > docs/CONFIGURATION.md`; first difference: {first:?}"
        );
    }
}
