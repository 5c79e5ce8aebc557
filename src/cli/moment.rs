//! Moments and durations as they are typed.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

/// Milliseconds since 1970 UTC. Without an offset the time is UTC, as for Kafka's tools.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let at = text.parse::<DateTime>().ok().and_then(|civil| TimeZone::UTC.to_timestamp(civil).ok());
    let at = at.ok_or("it must read YYYY-MM-DDTHH:mm:SS.sss, in UTC unless an offset such as +02:00 follows")?;
    Ok(at.as_millisecond())
}

/// Hours, minutes and seconds of a day in UTC.
pub(super) fn time_of_day(ms: i64) -> String {
    let seconds = ms.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Milliseconds.
pub(super) fn duration(text: &str) -> Result<i64, String> {
    let span = text.parse::<Span>().ok();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let ms = duration.and_then(|duration| i64::try_from(duration.as_millis()).ok()).filter(|ms| *ms >= 0);
    ms.ok_or_else(|| "it must read PnDTnHnMnS, such as P7D or PT1H30M".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_utc_unless_they_say_otherwise() {
        assert_eq!(moment("1970-01-01T00:00:01.5"), Ok(1500));
        assert_eq!(moment("2023-11-14T22:13:20.000"), Ok(1_700_000_000_000));
        assert_eq!(moment("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000));
        assert_eq!(moment("2023-11-15T00:13:20+02:00"), Ok(1_700_000_000_000));
        assert_eq!(moment("2023-11-14"), Ok(1_699_920_000_000));
        for wrong in ["", "yesterday", "2023-13-01T00:00:00", "1700000000000"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_of_day_are_utc() {
        assert_eq!([time_of_day(0), time_of_day(1_700_000_000_000)], ["00:00:00", "22:13:20"]);
    }

    #[test]
    fn durations_are_iso_8601() {
        assert_eq!(duration("PT1H30M"), Ok(5_400_000));
        assert_eq!(duration("P7D"), Ok(7 * 86_400_000));
        assert_eq!(duration("P1DT0.5S"), Ok(86_400_500));
        for wrong in ["", "7", "P1Y", "-PT1S"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
