//! The classic protocol: members elect one of them, who assigns.

/// One classic group.
#[derive(Debug, Default)]
pub struct ClassicGroup {}
