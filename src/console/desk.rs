//! Where questions are put by other threads, and the thread that has them answered. It begins with
//! the first question and stays; its connections go when nobody asks for a while.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::cache::Cache;
use super::question::{Problem, Question};
use crate::client::ClusterClient;
use crate::client::cluster_client::{Bootstrap, Manner};
use crate::config::ServerConfig;
use crate::runtime::bell::Bell;
use crate::runtime::executor::run_here;
use crate::runtime::{clock, spawn_local};

/// One batch is read as a whole, however large; a topic may allow larger ones than this.
const MANNER: Manner = Manner { client_id: "corelane-console", most_response_bytes: 32 << 20 };
/// Questions that are answered at a time, each on connections of its own.
const MOST_AT_ONCE: usize = 4;
/// Questions that wait behind them.
const MOST_WAITING: usize = 64;
/// Time for which an error that passes by itself (a leader that moves) is tried again.
const PATIENCE: Duration = Duration::from_secs(5);
/// A question has to be answered within this time, whatever it needs.
const LIMIT: Duration = Duration::from_secs(15);
/// Without a question for so long connections end, and what is known of the cluster goes.
const IDLE: Duration = Duration::from_secs(30);
const IO_MEMORY_BYTES: usize = 1 << 20;

type Outcome = Result<Value, Problem>;

struct Asked {
    question: Question,
    answer: Box<dyn FnOnce(Outcome) + Send>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Asked>,
    /// Of the thread; `None`: there is none yet.
    bell: Option<Bell>,
}

/// Takes questions to the broker's own listener.
#[derive(Clone)]
pub struct Desk {
    bootstrap: Arc<Vec<Bootstrap>>,
    state: Arc<Mutex<State>>,
}

impl Desk {
    /// Of a broker with these settings.
    pub fn new(config: &ServerConfig) -> Desk {
        Desk { bootstrap: Arc::new(bootstrap(config).into_iter().collect()), state: Arc::default() }
    }

    /// `answer` is called with the outcome, at once or by another thread.
    pub fn ask(&self, question: Question, answer: impl FnOnce(Outcome) + Send + 'static) {
        let asked = Asked { question, answer: Box::new(answer) };
        if let Err((asked, why)) = self.put(asked) {
            (asked.answer)(Err(Problem::Busy(why)));
        }
    }

    fn put(&self, asked: Asked) -> Result<(), (Asked, String)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.len() >= MOST_WAITING {
            return Err((asked, format!("{MOST_WAITING} questions wait already")));
        }
        if let Some(bell) = state.bell.clone() {
            state.waiting.push_back(asked);
            bell.ring();
            return Ok(());
        }
        match self.begin() {
            Ok(bell) => {
                state.waiting.push_back(asked);
                state.bell = Some(bell);
                Ok(())
            }
            Err(error) => Err((asked, could_not(&error))),
        }
    }

    /// Begins the thread, which waits for the lock of the caller.
    fn begin(&self) -> io::Result<Bell> {
        let bell = Bell::new()?;
        let (desk, own) = (self.clone(), bell.clone());
        let run = move || {
            let failed = desk.clone();
            if let Err(error) = run_here(IO_MEMORY_BYTES, move || work(desk, own)) {
                failed.give_up(&error);
            }
        };
        std::thread::Builder::new().name("console".to_owned()).spawn(run)?;
        Ok(bell)
    }

    fn next(&self) -> Option<Asked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.pop_front()
    }

    /// The thread ends without having answered.
    fn give_up(&self, error: &io::Error) {
        tracing::warn!("the console cannot ask the cluster: {error}");
        let waiting = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.bell = None;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|asked| (asked.answer)(Err(Problem::Busy(could_not(error)))));
    }
}

fn could_not(error: &io::Error) -> String {
    format!("the thread that asks the cluster could not be started: {error}")
}

/// The listener by which this broker reaches itself and learns how to reach the others.
fn bootstrap(config: &ServerConfig) -> Option<Bootstrap> {
    let inner = config.listeners.iter().find(|listener| listener.name == config.inter_broker_listener());
    let address = inner.or_else(|| config.listeners.first())?.address;
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some((host.to_string(), address.port()))
}

struct Worker {
    desk: Desk,
    bell: Bell,
    /// Clients that nobody uses.
    clients: RefCell<Vec<ClusterClient>>,
    active: Cell<usize>,
    cache: Cache,
}

async fn work(desk: Desk, bell: Bell) {
    if let Err(error) = bell.hang() {
        return desk.give_up(&error);
    }
    let worker =
        Rc::new(Worker { desk, bell, clients: RefCell::default(), active: Cell::new(0), cache: Cache::default() });
    loop {
        while worker.active.get() < MOST_AT_ONCE {
            let Some(asked) = worker.desk.next() else { break };
            worker.active.set(worker.active.get() + 1);
            let worker = worker.clone();
            spawn_local(async move {
                worker.answer(asked).await;
                worker.active.set(worker.active.get() - 1);
                worker.bell.ring();
            });
        }
        let rung = clock::until(clock::now() + IDLE, worker.bell.rung()).await;
        if rung.is_none() && worker.active.get() == 0 {
            worker.clients.borrow_mut().clear();
            worker.cache.clear();
        }
    }
}

impl Worker {
    async fn answer(&self, Asked { question, answer }: Asked) {
        let kept = self.clients.borrow_mut().pop();
        let mut client =
            kept.unwrap_or_else(|| ClusterClient::with_manner(MANNER, self.desk.bootstrap.to_vec(), PATIENCE));
        client.restart();
        let answering = Box::pin(question.answer(&mut client, &self.cache));
        let outcome = clock::until(clock::now() + LIMIT, answering).await;
        // After a failure its connections may be of no use, and what it knows of the cluster.
        if matches!(outcome, Some(Ok(_) | Err(Problem::NotFound(_)))) {
            self.clients.borrow_mut().push(client);
        }
        let late = || Problem::Failed(format!("the cluster did not answer within {} s", LIMIT.as_secs()));
        answer(outcome.unwrap_or_else(|| Err(late())));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::ListenerConfig;
    use crate::console::Query;

    fn config(listeners: &[(&str, &str)]) -> ServerConfig {
        let listener = |(name, address): &(&str, &str)| ListenerConfig {
            name: (*name).to_owned(),
            address: address.parse().unwrap(),
            advertised: None,
        };
        ServerConfig { listeners: listeners.iter().map(listener).collect(), ..ServerConfig::default() }
    }

    #[test]
    fn the_broker_is_asked_where_other_brokers_ask_it() {
        let host = |listeners: &[(&str, &str)]| bootstrap(&config(listeners));
        assert_eq!(host(&[("A", "10.0.0.1:1"), ("PLAINTEXT", "0.0.0.0:2")]), Some(("127.0.0.1".to_owned(), 2)));
        assert_eq!(host(&[("A", "10.0.0.1:1")]), Some(("10.0.0.1".to_owned(), 1)));
        assert_eq!(host(&[("PLAINTEXT", "[::]:2")]), Some(("::1".to_owned(), 2)));
        assert_eq!(host(&[]), None);
    }

    #[test]
    fn a_broker_that_is_away_is_a_problem_and_too_many_questions_are_another() {
        // Bound and not listened to: nobody else can have the port.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let desk = Desk::new(&config(&[("PLAINTEXT", &socket.local_addr().unwrap().to_string())]));
        let (sender, outcomes) = channel();
        for _ in 0..MOST_WAITING * 2 {
            let sender = sender.clone();
            let question = Question::topics(&Query::default()).unwrap();
            desk.ask(question, move |outcome| _ = sender.send(outcome));
        }
        drop(sender);
        let problems: Vec<Problem> = outcomes.iter().map(|outcome| outcome.unwrap_err()).collect();
        assert_eq!(problems.len(), MOST_WAITING * 2);
        assert!(problems.iter().any(|problem| matches!(problem, Problem::Failed(why) if why.contains("127.0.0.1"))));
        assert!(problems.iter().all(|problem| matches!(problem, Problem::Failed(_) | Problem::Busy(_))));
    }
}
