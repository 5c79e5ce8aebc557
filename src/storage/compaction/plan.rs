//! Whether a log is worth cleaning, and which of its segments become one. Pure.

/// Segments of one group at the most: as many files are renamed while readers may have to wait.
const MAX_GROUP: usize = 256;

/// A sealed segment, as far as planning needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub base: i64,
    /// Where the next segment begins.
    pub next: i64,
    pub bytes: u64,
    pub index_bytes: u64,
    /// Largest timestamp, or time of writing; -1: unknown.
    pub newest_ms: i64,
    /// Timestamp of the first batch; `None`: not needed, or there is none.
    pub first_ms: Option<i64>,
}

/// The topic's settings that say when.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub min_dirty_ratio: f64,
    pub min_lag_ms: i64,
    pub max_lag_ms: i64,
}

/// What there is to clean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Survey {
    /// Dirty bytes by all bytes that may be cleaned.
    pub dirty_ratio: f64,
    /// Nothing before this was written since the last cleaning.
    pub first_dirty: i64,
    /// Segments from here on are left alone.
    pub end: i64,
    /// Cleaning is due: by the ratio, or because a record has waited for longer than `max.compaction.lag.ms`.
    pub due: bool,
}

/// Looks at the sealed segments in order, as Kafka's cleaner does. `None`: nothing is dirty.
pub fn survey(segments: &[Facts], first_dirty: i64, rules: &Rules, now_ms: i64) -> Option<Survey> {
    let (mut clean_bytes, mut dirty_bytes, mut end, mut overdue) = (0, 0, first_dirty, false);
    for segment in segments {
        if segment.next <= first_dirty {
            clean_bytes += segment.bytes;
            continue;
        }
        if rules.min_lag_ms > 0 && segment.newest_ms > now_ms.saturating_sub(rules.min_lag_ms) {
            break;
        }
        dirty_bytes += segment.bytes;
        end = segment.next;
        overdue |= segment.first_ms.is_some_and(|first| first >= 0 && first < now_ms.saturating_sub(rules.max_lag_ms));
    }
    if dirty_bytes == 0 {
        return None;
    }
    let dirty_ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes) as f64;
    Some(Survey { dirty_ratio, first_dirty, end, due: overdue || dirty_ratio > rules.min_dirty_ratio })
}

/// Neighbours that fit into one segment together, by the sizes they have before cleaning. Ranges of `segments`.
pub fn groups(segments: &[Facts], segment_bytes: u64, index_bytes: u64) -> Vec<std::ops::Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut bytes, mut index) = (0, 0, 0);
    for (at, segment) in segments.iter().enumerate() {
        let fits = bytes + segment.bytes <= segment_bytes
            && index + segment.index_bytes <= index_bytes
            && segment.next - 1 - segments[start].base <= i64::from(i32::MAX)
            && at - start < MAX_GROUP;
        if at > start && !fits {
            groups.push(start..at);
            (start, bytes, index) = (at, 0, 0);
        }
        bytes += segment.bytes;
        index += segment.index_bytes;
    }
    if start < segments.len() {
        groups.push(start..segments.len());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(base: i64, next: i64, bytes: u64) -> Facts {
        Facts { base, next, bytes, index_bytes: 8, newest_ms: next, first_ms: Some(base) }
    }

    const RULES: Rules = Rules { min_dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX };

    #[test]
    fn the_ratio_decides_and_must_be_passed() {
        let segments = [segment(0, 10, 100), segment(10, 20, 100), segment(20, 30, 100)];
        let all = survey(&segments, 0, &RULES, 1000).unwrap();
        assert_eq!((all.dirty_ratio, all.end, all.due), (1.0, 30, true));
        let half = survey(&segments[..2], 10, &RULES, 1000).unwrap();
        assert_eq!((half.dirty_ratio, half.due), (0.5, false));
        let third = survey(&segments, 20, &Rules { min_dirty_ratio: 0.3, ..RULES }, 1000).unwrap();
        assert!(third.due);
        assert_eq!(survey(&segments, 30, &Rules { min_dirty_ratio: 0.0, ..RULES }, 1000), None);
        // A round that ended within a segment goes on there.
        assert_eq!(survey(&segments, 25, &RULES, 1000).unwrap().dirty_ratio, 1.0 / 3.0);
    }

    #[test]
    fn young_segments_wait_and_old_ones_do_not() {
        let segments = [segment(0, 10, 100), segment(10, 20, 100), segment(20, 30, 100)];
        let young = survey(&segments, 0, &Rules { min_lag_ms: 5, ..RULES }, 26).unwrap();
        assert_eq!(young.end, 20, "the third is from 30, and only what is up to 21 may be cleaned");
        assert_eq!(survey(&segments, 20, &Rules { min_lag_ms: 5, ..RULES }, 26), None);
        let rules = Rules { min_dirty_ratio: 1.0, max_lag_ms: 5, ..RULES };
        assert!(!survey(&segments, 20, &rules, 25).unwrap().due);
        assert!(survey(&segments, 20, &rules, 26).unwrap().due);
        let unknown = [Facts { first_ms: Some(-1), ..segment(20, 30, 100) }];
        assert!(!survey(&unknown, 20, &rules, 1_000_000).unwrap().due);
    }

    #[test]
    fn neighbours_are_put_together_as_long_as_they_fit() {
        let segments =
            [segment(0, 10, 40), segment(10, 20, 60), segment(20, 30, 1), segment(30, 40, 200), segment(40, 50, 1)];
        assert_eq!(groups(&segments, 100, 1000), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(groups(&segments, 1000, 16), [0..2, 2..4, 4..5]);
        assert_eq!(groups(&segments, 1000, 1000).first(), Some(&(0..5)));
        let far = [segment(0, 10, 1), segment(10, 1 << 31, 1), segment(1 << 31, (1 << 31) + 5, 1)];
        assert_eq!(groups(&far, 1000, 1000), [0..2, 2..3]);
        let many: Vec<Facts> = (0..600).map(|n| segment(n, n + 1, 1)).collect();
        assert_eq!(groups(&many, 1000, 100_000), [0..256, 256..512, 512..600]);
        assert!(groups(&[], 1, 1).is_empty());
    }
}
