//! Results that tasks of a shard leave for the one that began them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;

use crate::runtime::clock;
use crate::runtime::sync::Notify;

pub struct Inbox<T> {
    items: RefCell<Vec<T>>,
    news: Notify,
}

impl<T> Inbox<T> {
    pub fn new() -> Rc<Inbox<T>> {
        Rc::new(Inbox { items: RefCell::new(Vec::new()), news: Notify::new() })
    }

    pub fn put(&self, item: T) {
        self.items.borrow_mut().push(item);
        self.news.notify_all();
    }

    /// Everything that is there.
    pub fn take(&self) -> Vec<T> {
        self.items.take()
    }

    /// Until something is there, or for so long at the most. May be dropped in mid-wait.
    pub async fn filled(&self, within: Duration) {
        if self.items.borrow().is_empty() {
            or(self.news.notified(), clock::sleep(within)).await;
        }
    }
}
