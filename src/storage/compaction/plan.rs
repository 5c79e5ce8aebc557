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

/// The dirty part of a log, measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Survey {
    /// Dirty bytes by all bytes that may be cleaned.
    pub dirty_ratio: f64,
    /// Nothing before this was written since the last cleaning.
    pub first_dirty: i64,
    /// Segments from here on are left alone.
    pub end: i64,
    /// Cleaning is due: by the ratio, or because a record has waited for longer than
    /// `max.compaction.lag.ms`.
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

/// Sizes so far of a cleaned segment that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gathered {
    pub base: i64,
    /// Old segments in it.
    pub segments: usize,
    pub bytes: u64,
    pub index_bytes: u64,
}

/// The topic's bounds of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub segment_bytes: u64,
    pub index_bytes: u64,
}

impl Bounds {
    /// True if `next` goes into the same cleaned segment, even if all of it stays. Going by what
    /// has come of the segments before, and not by their size, puts a log that shrinks much into
    /// few segments at once, and hardly any of them is left without a record.
    pub fn admit(&self, gathered: &Gathered, next: &Facts) -> bool {
        gathered.bytes + next.bytes <= self.segment_bytes
            && gathered.index_bytes + next.index_bytes <= self.index_bytes
            && next.next - 1 - gathered.base <= i64::from(i32::MAX)
            && gathered.segments < MAX_GROUP
    }
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
    fn a_neighbour_joins_as_long_as_all_of_it_fits() {
        let bounds = Bounds { segment_bytes: 100, index_bytes: 16 };
        let gathered = Gathered { base: 0, segments: 1, bytes: 40, index_bytes: 8 };
        assert!(bounds.admit(&gathered, &segment(10, 20, 60)));
        assert!(!bounds.admit(&gathered, &segment(10, 20, 61)));
        assert!(!bounds.admit(&Gathered { index_bytes: 9, ..gathered }, &segment(10, 20, 60)));
        assert!(bounds.admit(&gathered, &segment(10, 1 << 31, 60)));
        assert!(!bounds.admit(&gathered, &segment(10, (1 << 31) + 1, 60)));
        assert!(!bounds.admit(&Gathered { segments: MAX_GROUP, ..gathered }, &segment(10, 20, 60)));
    }
}
