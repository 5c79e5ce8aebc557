//! This broker's settings: those of its start, and the options that are set while brokers run;
//! options of single groups.

use std::rc::Rc;
use std::sync::Arc;

use super::control::control_error;
use super::requests::{PATIENCE, Try};
use super::state::Shard;
use crate::cluster::controller::{AlterBroker, AlterGroup, ControlError, alter_broker, alter_group};
use crate::cluster::image_diff::ImageUpdate;
use crate::cluster::store::{Commit, Key, Record};
use crate::config::ServerConfig;
use crate::model::{BrokerId, ErrorCode};
use crate::observe::client_line;
use crate::runtime::clock;
use crate::shard::member::Member;

impl AlterBroker {
    fn key(&self) -> Key {
        self.broker.map_or(Key::DefaultConfig, Key::BrokerConfig)
    }

    fn options(&self, settings: &ServerConfig) -> Record {
        let dynamic = &settings.dynamic;
        Record::Config(if self.broker.is_some() { dynamic.broker.clone() } else { dynamic.cluster.clone() })
    }
}

impl Shard {
    /// Settings in force.
    pub fn settings(&self) -> Arc<ServerConfig> {
        self.image.borrow().settings.clone().unwrap_or_else(|| self.config.clone())
    }

    /// Sets options of this broker, or of all; each is stored and in force on every shard of this
    /// broker when its result is there.
    pub async fn alter_brokers(
        self: &Rc<Self>,
        changes: Vec<AlterBroker>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        self.on_controller(changes, async move |shard: &Rc<Shard>, batch| {
            let mut results = Vec::with_capacity(batch.len());
            for request in batch {
                results.push(shard.alter_broker(&request, validate_only).await);
            }
            results
        })
        .await
    }

    async fn alter_broker(self: &Rc<Self>, request: &AlterBroker, only: bool) -> Result<(), ControlError> {
        match self.member() {
            Some(member) => self.alter_shared_options(&member, request, only).await?,
            None => self.alter_own_options(request, only).await?,
        }
        if !only {
            let of = request.broker.map_or("all brokers".to_owned(), |BrokerId(id)| format!("broker {id}"));
            client_line!(info, %of, options = ?self.settings().dynamic, "altered options");
        }
        Ok(())
    }

    /// Sets options of groups; each is stored and in force on every shard of this broker
    /// when its result is there.
    pub async fn alter_groups(
        self: &Rc<Self>,
        changes: Vec<AlterGroup>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        self.on_controller(changes, async move |shard: &Rc<Shard>, batch| {
            let mut results = Vec::with_capacity(batch.len());
            for request in batch {
                results.push(shard.alter_group(&request, validate_only).await);
            }
            results
        })
        .await
    }

    async fn alter_group(self: &Rc<Self>, request: &AlterGroup, only: bool) -> Result<(), ControlError> {
        match self.member() {
            Some(member) => self.alter_shared_group(&member, request, only).await?,
            None => self.alter_own_group(request, only).await?,
        }
        if !only {
            let options = self.image().groups.of(&request.name);
            client_line!(info, group = %request.name.escape_debug(), ?options, "altered options");
        }
        Ok(())
    }

    async fn alter_own_group(self: &Rc<Self>, request: &AlterGroup, only: bool) -> Result<(), ControlError> {
        let before = self.image().groups.clone();
        let options = alter_group(&self.settings(), &before, request)?;
        if only || options == before.of(&request.name) {
            return Ok(());
        }
        let group = request.name.clone();
        let (groups, revision) =
            self.with_keeper(move |keeper| keeper.group(&group, options)).await.map_err(|why| {
                client_line!(error, %why, "writing metadata failed");
                control_error(ErrorCode::KafkaStorageError, why)
            })?;
        self.publish(ImageUpdate::grouped(&self.image(), Arc::new(groups), revision)).await;
        Ok(())
    }

    async fn alter_shared_group(
        self: &Rc<Self>,
        member: &Rc<Member>,
        request: &AlterGroup,
        only: bool,
    ) -> Result<(), ControlError> {
        self.request(member, clock::now() + PATIENCE, |_, _, _| {
            let node = member.node.borrow();
            let options = match alter_group(&self.settings(), &node.mirror().groups(), request) {
                Ok(options) if !only => options,
                answer => return Try::Answered(answer.map(drop)),
            };
            match node.mirror().group_write(&request.name, options) {
                Some(write) => Try::Commit(Commit { checks: Vec::new(), writes: vec![write] }, ()),
                None => Try::Answered(Ok(())),
            }
        })
        .await
    }

    async fn alter_own_options(self: &Rc<Self>, request: &AlterBroker, only: bool) -> Result<(), ControlError> {
        let before = self.settings();
        let settings = Arc::new(alter_broker(&self.config, &before, request)?);
        if only || settings.dynamic == before.dynamic {
            return Ok(());
        }
        let (key, record, defaults) = (request.key(), request.options(&settings), settings.topic_defaults.clone());
        let stored = self.with_keeper(move |keeper| keeper.configure(key, record, defaults)).await;
        let revision = stored.map_err(|why| {
            client_line!(error, %why, "writing metadata failed");
            control_error(ErrorCode::KafkaStorageError, why)
        })?;
        self.publish(ImageUpdate::configured(&self.image(), settings, revision)).await;
        Ok(())
    }

    async fn alter_shared_options(
        self: &Rc<Self>,
        member: &Rc<Member>,
        request: &AlterBroker,
        only: bool,
    ) -> Result<(), ControlError> {
        self.request(member, clock::now() + PATIENCE, |image, _, _| {
            let before = image.settings.clone().unwrap_or_else(|| self.config.clone());
            let settings = match alter_broker(&self.config, &before, request) {
                Ok(settings) if !only => settings,
                answer => return Try::Answered(answer.map(drop)),
            };
            let node = member.node.borrow();
            match node.mirror().write(request.key(), request.options(&settings)) {
                Some(write) => Try::Commit(Commit { checks: Vec::new(), writes: vec![write] }, ()),
                None => Try::Answered(Ok(())),
            }
        })
        .await
    }
}
