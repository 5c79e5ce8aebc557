//! When things are due. Nothing that a broker does or fails to do moves a schedule.

/// Evenly spaced moments: the `n`th thing is due `first_ns + n * period_ns`
/// after the run's clock began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    first_ns: u64,
    period_ns: f64,
}

impl Schedule {
    /// `per_second` things in all, of which lane `lane` of `lanes` takes its part, offset so
    /// that the lanes alternate.
    pub fn new(start_ns: u64, per_second: f64, lane: usize, lanes: usize) -> Schedule {
        let period_all = 1e9 / per_second;
        let first_ns = start_ns + (period_all * lane as f64) as u64;
        Schedule { first_ns, period_ns: period_all * lanes as f64 }
    }

    pub fn due_ns(&self, n: u64) -> u64 {
        self.first_ns + (n as f64 * self.period_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_a_rate_evenly_and_exactly() {
        let (start, lanes, rate) = (5_000_000_000, 3, 1000.0);
        let mut due: Vec<u64> = (0..lanes)
            .flat_map(|lane| {
                let schedule = Schedule::new(start, rate, lane, lanes);
                (0..1000).map(move |n| schedule.due_ns(n))
            })
            .collect();
        due.sort_unstable();
        for (n, due) in due.iter().enumerate() {
            assert!(due.abs_diff(start + n as u64 * 1_000_000) <= 2, "{n}: {due}");
        }
    }

    #[test]
    fn odd_rates_do_not_drift() {
        let schedule = Schedule::new(0, 7.0, 0, 1);
        assert!(schedule.due_ns(7 * 3600).abs_diff(3600 * 1_000_000_000) <= 1);
        let fast = Schedule::new(0, 333_333.0, 0, 1);
        assert!(fast.due_ns(333_333 * 60).abs_diff(60_000_000_000) <= 1);
    }
}
