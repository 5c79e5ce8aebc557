//! Records of `__consumer_offsets`, in Kafka's own formats (schemas: `*Key.json`, `*Value.json` of
//! Kafka's group-coordinator). A key begins with the number of its kind (int16), a value with the
//! version of its schema (int16).

mod classic;
mod consumer;
mod kinds;
mod offset;
#[cfg(test)]
mod tests;

pub use classic::{ClassicGroupValue, ClassicMemberValue};
pub use consumer::{
    ClassicMember, ConsumerRecord, CurrentValue, GroupValue, MemberId, MemberValue, OwnedPartitions, Partitions,
    RegexValue, TargetMetadataValue,
};
pub use kinds::Record;
pub use offset::OffsetValue;
