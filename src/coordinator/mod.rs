//! Common ground of the group coordinator and the transaction coordinator, without I/O: when a
//! coordinator serves and its replies may leave ([`Tenure`]), its deadlines ([`Timers`]), and the
//! fields of the records that it writes ([`wire`]).

mod tenure;
mod timers;
pub mod wire;

pub use tenure::{Stage, Tenure, Ticket};
pub use timers::Timers;
