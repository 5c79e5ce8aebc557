//! All brokers end, and start again.

use super::*;

impl Cluster {
    /// Everything arrives once, and every node does what is due.
    fn step(&mut self, ms: i64) {
        self.now_ms += ms;
        self.model.settle();
        for node in &mut self.nodes {
            node.poll(self.now_ms);
            node.act(self.now_ms);
        }
    }

    fn states(&self, count: i32) -> Vec<PartitionState> {
        (0..count).map(|partition| self.state(partition)).collect()
    }
}

/// Every leader leads on in the next epoch, and nobody has left an ISR.
fn assert_led_on(cluster: &Cluster, before: &[PartitionState]) {
    for (state, before) in cluster.states(before.len() as i32).iter().zip(before) {
        assert_eq!((state.leader, &state.isr, &state.elr), (before.leader, &before.isr, &before.elr));
        assert_eq!(state.leader_epoch.0, before.leader_epoch.0 + 1, "written once");
    }
    assert!(cluster.nodes.iter().all(Node::is_active));
}

#[test]
fn where_all_are_killed_each_leads_on() {
    let mut cluster = Cluster::of(3);
    cluster.make_topic(&[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2], &[1, 2]]);
    let before = cluster.states(4);
    // One after the other: the registrations of those that are not back yet stand still.
    for at in 0..3 {
        cluster.model.disconnect(cluster.nodes[at].store().id());
    }
    for at in 0..3 {
        cluster.nodes[at] = node(&cluster.model, at as i32 + 1, start(at as i32 + 1, 1));
        cluster.connect(at);
        cluster.step(100);
        cluster.step(100);
    }
    cluster.settle();
    assert_led_on(&cluster, &before);
}

#[test]
fn where_all_stop_none_resigns() {
    let mut cluster = Cluster::of(3);
    cluster.make_topic(&[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2], &[3, 2]]);
    let before = cluster.states(4);
    // The controller sees the first one leave before the others do.
    cluster.nodes[1].begin_drain();
    (0..3).for_each(|_| cluster.step(10));
    assert_eq!(cluster.incarnation(2).phase, Phase::Draining);
    assert!(!cluster.nodes[1].may_stop(), "others may lead instead");
    [0, 2].iter().for_each(|at| cluster.nodes[*at].begin_drain());
    (0..30).for_each(|_| cluster.step(10));
    assert!(cluster.nodes.iter().all(Node::may_stop));
    for at in [1, 2, 0] {
        cluster.nodes[at].close();
        (0..30).for_each(|_| cluster.step(10));
    }
    assert_eq!(cluster.states(4), before, "for whom?");
    for at in 0..3 {
        let clean = Start { clean_stop: true, ..start(at as i32 + 1, 7) };
        cluster.nodes[at] = node(&cluster.model, at as i32 + 1, clean);
        cluster.connect(at);
        cluster.step(100);
    }
    cluster.settle();
    assert_led_on(&cluster, &before);
}

#[test]
fn brokers_that_start_together_have_time_from_when_one_of_them_can_decide() {
    let mut cluster = Cluster::of(2);
    cluster.make_topic(&[&[2, 1]]);
    (0..2).for_each(|at| cluster.model.expire(cluster.nodes[at].store().id()));
    // Its logs took as long as all that the cluster has done so far.
    cluster.nodes.truncate(1);
    cluster.nodes[0] = node(&cluster.model, 1, start(1, 1));
    cluster.connect(0);
    (0..25).for_each(|_| cluster.step(100));
    assert!(cluster.nodes[0].is_active() && cluster.nodes[0].holds_office());
    assert_eq!(cluster.leaders(1), [2], "it may come yet");
    (0..15).for_each(|_| cluster.step(100));
    assert_eq!(cluster.leaders(1), [1]);
}
