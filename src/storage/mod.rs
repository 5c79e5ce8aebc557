//! One partition's bytes.
