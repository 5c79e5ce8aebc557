//! Tokens that come at a rate and are taken at once (Kafka's `TokenBucket`, KIP-599).
//! Pure; time is an argument.

/// Tokens of one client; below zero they are owed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenBucket {
    tokens: f64,
    /// `None`: it is full.
    updated_ms: Option<u64>,
}

impl TokenBucket {
    /// Adds what has come since the last time; no more than `burst_ms` gives.
    fn refill(&mut self, now_ms: u64, per_second: f64, burst_ms: u64) {
        let burst = per_second * burst_ms as f64 / 1000.0;
        let since = |updated| per_second * now_ms.saturating_sub(updated) as f64 / 1000.0;
        self.tokens = self.updated_ms.map_or(burst, |updated| (self.tokens + since(updated)).min(burst));
        self.updated_ms = Some(now_ms);
    }

    fn owed_ms(&self, per_second: f64) -> u64 {
        if self.tokens < 0.0 { (-self.tokens / per_second * 1000.0).round() as u64 } else { 0 }
    }

    /// Takes tokens, unless some are owed: the time until none are, ms. What is taken may be
    /// more than what is there.
    pub fn take_strictly(&mut self, now_ms: u64, tokens: f64, per_second: f64, burst_ms: u64) -> Result<(), u64> {
        self.refill(now_ms, per_second, burst_ms);
        if self.tokens < 0.0 {
            return Err(self.owed_ms(per_second));
        }
        self.tokens -= tokens;
        Ok(())
    }

    /// Takes tokens in any case; the time until none are owed, ms.
    pub fn take(&mut self, now_ms: u64, tokens: f64, per_second: f64, burst_ms: u64) -> u64 {
        self.refill(now_ms, per_second, burst_ms);
        self.tokens -= tokens;
        self.owed_ms(per_second)
    }

    /// It is full by now at any rate.
    pub fn is_idle(&self, now_ms: u64, burst_ms: u64) -> bool {
        self.updated_ms.is_none_or(|updated| self.tokens >= 0.0 && now_ms.saturating_sub(updated) >= burst_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u64 = 11_000;

    #[test]
    fn what_is_owed_has_to_come_first() {
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.take_strictly(1000, 15.0, 1.0, BURST), Ok(()), "more than the eleven that are there");
        assert_eq!(bucket.take_strictly(1000, 1.0, 1.0, BURST), Err(4000));
        assert_eq!(bucket.take_strictly(4999, 1.0, 1.0, BURST), Err(1));
        assert_eq!(bucket.take_strictly(5000, 1.0, 1.0, BURST), Ok(()));
        assert_eq!(bucket.take_strictly(5000, 1.0, 1.0, BURST), Err(1000));
        assert_eq!(bucket.take_strictly(5000, 1.0, 10.0, BURST), Err(100), "at a higher rate");
    }

    #[test]
    fn older_clients_wait_instead() {
        let mut bucket = TokenBucket::default();
        assert_eq!(bucket.take(0, 11.0, 1.0, BURST), 0);
        assert_eq!(bucket.take(0, 2.0, 1.0, BURST), 2000);
        assert_eq!(bucket.take(1000, 2.0, 1.0, BURST), 3000);
        assert!(!bucket.is_idle(1_000_000, BURST));
        assert_eq!(bucket.take(1_000_000, 0.0, 1.0, BURST), 0);
        assert!(!bucket.is_idle(1_000_001, BURST) && bucket.is_idle(1_011_000, BURST));
        assert_eq!(bucket.take(1_000_000, 12.0, 1.0, BURST), 1000, "it holds no more than eleven");
    }
}
