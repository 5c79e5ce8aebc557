//! The engine's own rules, and the engine against servers. The servers' tests need Java and the
//! jars of ZooKeeper in the folder that `CORELANE_ZOOKEEPER` names; without them they pass at once.

mod ensemble;
mod faults;
mod rules;
mod servers;
