//! One replica's rules.
