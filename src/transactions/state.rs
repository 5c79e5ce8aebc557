//! The states of a transaction.

/// State of a transaction as it is written; the number is the one in its record. Kafka's Dead (6)
/// and PrepareEpochFence (7) are states that it passes through while a record is on its way, and
/// never written; here a decision holds at once, so there is nothing to pass through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i8)]
pub enum State {
    /// No transaction since the producer was initialized.
    Empty = 0,
    Ongoing = 1,
    /// Committed: markers are on their way.
    PrepareCommit = 2,
    /// Aborted: markers are on their way.
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
}

impl State {
    pub const ALL: [State; 6] = [
        State::Empty,
        State::Ongoing,
        State::PrepareCommit,
        State::PrepareAbort,
        State::CompleteCommit,
        State::CompleteAbort,
    ];

    /// As DescribeTransactions and ListTransactions name it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Ongoing => "Ongoing",
            State::PrepareCommit => "PrepareCommit",
            State::PrepareAbort => "PrepareAbort",
            State::CompleteCommit => "CompleteCommit",
            State::CompleteAbort => "CompleteAbort",
        }
    }

    /// True where Kafka's tools know a state of that name, also of one that is never shown.
    pub fn is_name(name: &str) -> bool {
        matches!(name, "Dead" | "PrepareEpochFence") || State::ALL.iter().any(|state| state.name() == name)
    }

    pub fn of(number: i8) -> Option<State> {
        State::ALL.into_iter().find(|state| *state as i8 == number)
    }

    /// Markers are on their way.
    pub fn is_ending(self) -> bool {
        matches!(self, State::PrepareCommit | State::PrepareAbort)
    }

    /// There is no transaction: the id may expire.
    pub fn is_idle(self) -> bool {
        matches!(self, State::Empty | State::CompleteCommit | State::CompleteAbort)
    }
}
