use super::*;
use crate::runtime::executor::tests::{on_shards, specs};
use crate::runtime::executor::{ShardSpec, run_shards};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[derive(Default)]
struct State {
    seen: RefCell<Vec<u64>>,
    hold: Cell<bool>,
}

/// Runs `body` on two shards with a mesh; both stay until both bodies have ended.
fn on_mesh<B, F>(capacity: usize, body: B)
where
    B: Fn(Rc<Mesh<State>>, Rc<State>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let seats: Arc<Mutex<Vec<_>>> =
        Arc::new(Mutex::new(mesh::<State>(2, capacity).unwrap().into_iter().map(Some).collect()));
    let ended = Arc::new(AtomicUsize::new(0));
    on_shards(2, move |spec: ShardSpec| {
        let (seats, ended, body) = (seats.clone(), ended.clone(), body.clone());
        async move {
            let seat = seats.lock().unwrap()[usize::from(spec.index)].take().unwrap();
            let mesh = Mesh::connect(seat).unwrap();
            let state = Rc::new(State::default());
            mesh.serve(state.clone());
            body(mesh, state).await;
            ended.fetch_add(1, Ordering::SeqCst);
            while ended.load(Ordering::SeqCst) < 2 {
                clock::sleep(Duration::from_millis(1)).await;
            }
        }
    });
}

#[test]
fn calls_arrive_in_order_under_back_pressure() {
    const CALLS: u64 = 20_000;
    on_mesh(8, |mesh, state| async move {
        if mesh.own == ShardId(1) {
            while state.seen.borrow().len() < CALLS as usize {
                clock::sleep(Duration::from_millis(1)).await;
            }
            assert!(state.seen.borrow().iter().copied().eq(0..CALLS), "out of order");
            return;
        }
        let mut results = VecDeque::new();
        for i in 0..CALLS {
            let result = mesh.call(ShardId(1), move |state| {
                state.seen.borrow_mut().push(i);
                async move { i * 2 }
            });
            results.push_back(result.await.unwrap());
            let queued = mesh.peer(ShardId(1)).unwrap().outbox.borrow().len();
            assert!(queued <= 9, "{queued} calls queued, bound 8");
        }
        for i in 0..CALLS {
            assert_eq!(results.pop_front().unwrap().await, Ok(i * 2));
        }
    });
}

#[test]
fn a_hundred_thousand_calls_each_way_do_not_hang() {
    const TASKS: u64 = 50;
    const CALLS: u64 = 2_000;
    on_mesh(16, |mesh, _| async move {
        let other = ShardId(1 - mesh.own.0);
        let mut tasks = Vec::new();
        for task in 0..TASKS {
            let mesh = mesh.clone();
            tasks.push(crate::runtime::executor::spawn_joined(async move {
                for i in 0..CALLS {
                    let result = mesh.call(other, move |_| async move {
                        if i % 500 == 0 {
                            clock::sleep(Duration::from_millis(1)).await;
                        }
                        task * CALLS + i
                    });
                    let result = result.await.unwrap();
                    if i % 10 == 0 {
                        drop(result);
                    } else {
                        assert_eq!(result.await, Ok(task * CALLS + i));
                    }
                }
            }));
        }
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn dropped_results_leave_nothing_behind() {
    on_mesh(64, |mesh, state| async move {
        if mesh.own == ShardId(1) {
            while !state.hold.get() {
                clock::sleep(Duration::from_millis(1)).await;
            }
            return;
        }
        for i in 0..1000u64 {
            let result = mesh.call(ShardId(1), move |state| async move { state.seen.borrow_mut().push(i) });
            drop(result.await.unwrap());
        }
        mesh.tell(ShardId(1), |state| state.hold.set(true));
        let seen = mesh.call(ShardId(1), |state| async move { state.seen.borrow().len() });
        assert_eq!(seen.await.unwrap().await, Ok(1000));
        assert!(mesh.peer(ShardId(1)).unwrap().waiting.borrow().is_empty());
        let own = mesh.call(ShardId(0), |state| async move { state.seen.borrow().len() });
        assert_eq!(own.await.unwrap().await, Ok(0));
    });
}

#[test]
fn a_stopped_shard_is_told_to_those_who_wait() {
    let seats: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(mesh::<State>(2, 4).unwrap().into_iter().map(Some).collect()));
    let reached = Arc::new(AtomicUsize::new(0));
    let counted = reached.clone();
    let threads = run_shards(specs(2), move |spec| {
        let (seats, counted) = (seats.clone(), counted.clone());
        async move {
            let seat = seats.lock().unwrap()[usize::from(spec.index)].take().unwrap();
            let mesh = Mesh::connect(seat).unwrap();
            let state = Rc::new(State::default());
            mesh.serve(state.clone());
            if spec.index == 1 {
                while !state.hold.get() {
                    clock::sleep(Duration::from_millis(1)).await;
                }
                return;
            }
            let never = mesh.call(ShardId(1), |state| async move {
                state.hold.set(true);
                std::future::pending::<()>().await;
            });
            assert_eq!(never.await.unwrap().await, Err(ShardStopped));
            assert!(mesh.call(ShardId(1), |_| async {}).await.is_err());
            mesh.tell(ShardId(1), |_| {});
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    threads.unwrap().join();
    assert_eq!(reached.load(Ordering::SeqCst), 1);
}

/// Not a test of speed: prints what a call costs (`--ignored --nocapture`, best with `--release`).
#[test]
#[ignore = "a measurement"]
fn measure_calls() {
    on_mesh(1024, |mesh, _| async move {
        if mesh.own == ShardId(1) {
            return;
        }
        let mut idle = Vec::new();
        for _ in 0..5000 {
            let start = Instant::now();
            mesh.call(ShardId(1), |_| async {}).await.unwrap().await.unwrap();
            idle.push(start.elapsed());
            clock::sleep(Duration::from_micros(200)).await;
        }
        idle.sort();
        let mut back_to_back = Vec::new();
        for _ in 0..20_000 {
            let start = Instant::now();
            mesh.call(ShardId(1), |_| async {}).await.unwrap().await.unwrap();
            back_to_back.push(start.elapsed());
        }
        back_to_back.sort();
        let start = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..64 {
            let mesh = mesh.clone();
            tasks.push(crate::runtime::executor::spawn_joined(async move {
                for _ in 0..20_000 {
                    mesh.call(ShardId(1), |_| async {}).await.unwrap().await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await;
        }
        let rate = 64.0 * 20_000.0 / start.elapsed().as_secs_f64();
        eprintln!("idle p50 {:?} p99 {:?}", idle[2500], idle[4950]);
        eprintln!("back to back p50 {:?} p99 {:?}", back_to_back[10_000], back_to_back[19_800]);
        eprintln!("depth 64: {rate:.0} calls/s");
    });
}
