//! Logs go to stderr: one line a fact, UTC; as text, coloured only on a terminal, or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Wins over `corelane.log.level` when it is set.
const VARIABLE: &str = "CORELANE_LOG";

/// Form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    /// One object: `timestamp`, `level`, `target` (the module), `message`, and the
    /// line's own fields beside them.
    Json,
}

/// Starts logging at `filter` (`corelane.log.level`); the error names the
/// filter and where it came from.
pub fn init_logging(filter: &str, format: LogFormat) -> Result<(), String> {
    let variable = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let filter = choose(filter, variable.as_deref())?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written (a full disk, a pipe without a reader) would be reported to
        // stderr too, and that panics.
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    started.map_err(|e| format!("logging cannot be started: {e}"))
}

fn choose(option: &str, variable: Option<&str>) -> Result<EnvFilter, String> {
    let (origin, text) = variable.map_or(("corelane.log.level", option), |text| (VARIABLE, text));
    // A bare unknown word would be taken for the name of a module, and nothing
    // would be logged at all.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let example = "it must be error, warn, info, debug, trace, or such as info,corelane::storage=debug";
    for part in text.split(',').map(str::trim) {
        if !part.contains(['=', ':', '[']) && !levels.iter().any(|level| part.eq_ignore_ascii_case(level)) {
            return Err(format!("{origin} = {text}: '{part}' is no level; {example}"));
        }
    }
    EnvFilter::try_new(text).map_err(|e| format!("{origin} = {text}: {e}; {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_and_mistakes_name_their_origin() {
        assert_eq!(choose("info", None).unwrap().to_string(), "info");
        assert_eq!(choose("info", Some("debug")).unwrap().to_string(), "debug");
        assert!(choose("info,corelane::storage=debug", None).is_ok());
        assert!(choose("loud", None).unwrap_err().starts_with("corelane.log.level = loud"));
        assert!(choose("info", Some("corelane=loud")).unwrap_err().starts_with("CORELANE_LOG = corelane=loud"));
    }
}
