use super::*;

fn ids(watched: Vec<BrokerId>) -> Vec<i32> {
    watched.into_iter().map(|broker| broker.0).collect()
}

fn refused(cluster: &mut Cluster, at: usize, broker: i32, times: [i64; 3]) -> [bool; 3] {
    times.map(|ms| cluster.nodes[at].refused(BrokerId(broker), ms))
}

#[test]
fn the_controller_watches_all_and_all_watch_the_controller() {
    let cluster = Cluster::of(3);
    let watched: Vec<_> = cluster.nodes.iter().map(|node| ids(node.watched())).collect();
    let controller = cluster.nodes.iter().position(Node::holds_office).unwrap();
    for (at, watched) in watched.iter().enumerate() {
        let others: Vec<i32> = (1..=3).filter(|broker| *broker != at as i32 + 1).collect();
        assert_eq!(*watched, if at == controller { others } else { vec![controller as i32 + 1] });
    }
}

/// The session of broker 2 stands: without the eviction it would lead on.
#[test]
fn a_dead_process_loses_its_leaderships_before_its_session_ends() {
    let mut cluster = Cluster::of(3);
    assert!(cluster.nodes[0].holds_office());
    cluster.make_topic(&[&[2, 3, 1], &[1, 2, 3]]);
    let dead = BrokerId(2);
    assert_eq!(refused(&mut cluster, 0, 2, [0, 10, 20]), [false; 3], "no connection stood");
    cluster.nodes[0].connected(dead);
    cluster.nodes[0].disconnected(dead);
    assert_eq!(refused(&mut cluster, 2, 2, [0, 10, 20]), [false; 3], "broker 3 does not watch it");
    assert_eq!(refused(&mut cluster, 0, 2, [1_000, 1_050, 1_100]), [false, false, true]);
    cluster.settle_but(1);
    assert_eq!(cluster.leaders(2), [3, 1]);
    assert_eq!(ids(cluster.nodes[0].watched()), [3], "it is watched no more");
    // It was alive after all: it learns that it is not registered, and comes back.
    cluster.settle();
    assert!(cluster.nodes[1].is_active());
    cluster.nodes[0].connected(dead);
    cluster.nodes[0].disconnected(dead);
    let later = [30_000, 30_050, 30_100];
    assert_eq!(refused(&mut cluster, 0, 2, later), [false; 3], "once a minute");
}

#[test]
fn a_dead_controller_is_evicted_by_any_and_followed_by_another() {
    let mut cluster = Cluster::of(3);
    for at in [1, 2] {
        cluster.nodes[at].connected(BrokerId(1));
        cluster.nodes[at].disconnected(BrokerId(1));
        assert_eq!(refused(&mut cluster, at, 1, [0, 100, 200]), [false, false, true]);
    }
    cluster.settle_but(0);
    let controllers: Vec<_> = [1, 2].into_iter().filter(|at| cluster.nodes[*at].holds_office()).collect();
    assert_eq!(controllers.len(), 1);
}

/// A connection that broke with one process says nothing of the next one.
#[test]
fn a_suspicion_ends_with_the_registration_it_is_about() {
    let mut cluster = Cluster::of(3);
    let broker = BrokerId(2);
    cluster.nodes[0].connected(broker);
    cluster.nodes[0].disconnected(broker);
    let id = cluster.nodes[1].store().id();
    cluster.model.expire(id);
    cluster.connect(1);
    cluster.settle();
    cluster.connect(1);
    cluster.settle();
    assert!(cluster.nodes[1].is_active());
    assert_eq!(refused(&mut cluster, 0, 2, [0, 10, 20]), [false; 3]);
}
