use super::*;

fn entity(parts: &[(&str, Option<&str>)]) -> NamedEntity {
    parts.iter().map(|(kind, name)| (kind.to_string(), name.map(str::to_owned))).collect()
}

fn alter(parts: &[(&str, Option<&str>)], ops: &[(&str, Option<f64>)]) -> AlterQuotas {
    AlterQuotas { entity: entity(parts), ops: ops.iter().map(|(key, value)| (key.to_string(), *value)).collect() }
}

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// The outcome of one alteration of nothing: what it writes, or its error.
fn planned(request: AlterQuotas) -> Result<Vec<(QuotaEntity, Options)>, ControlError> {
    let planned = plan(&[request], &ClientQuotas::default(), |_| Options::new());
    let [(_, outcome)] = &planned.outcomes[..] else { panic!("{planned:?}") };
    outcome.clone().map(|()| planned.writes.into_iter().collect())
}

#[test]
fn values_are_written_as_kafka_does() {
    let user = [("user", Some("u"))];
    let request = alter(
        &user,
        &[
            ("producer_byte_rate", Some(1e7)),
            ("request_percentage", Some(12.5)),
            ("controller_mutation_rate", Some(2.0)),
        ],
    );
    let wanted = options(&[
        ("producer_byte_rate", "10000000"),
        ("request_percentage", "12.5"),
        ("controller_mutation_rate", "2.0"),
    ]);
    assert_eq!(planned(request), Ok(vec![(QuotaEntity::User(Some("u".into())), wanted)]));
    let largest = alter(&user, &[("consumer_byte_rate", Some(i64::MAX as f64))]);
    assert_eq!(planned(largest).unwrap()[0].1, options(&[("consumer_byte_rate", "9223372036854775807")]));
    let endless = alter(&user, &[("request_percentage", Some(f64::INFINITY))]);
    assert_eq!(planned(endless).unwrap()[0].1, options(&[("request_percentage", "Infinity")]));
    let ip = alter(&[("ip", None)], &[("connection_creation_rate", Some(5.0))]);
    assert_eq!(planned(ip).unwrap(), [(QuotaEntity::Ip(None), options(&[("connection_creation_rate", "5")]))]);
}

#[test]
fn wrong_requests_have_kafkas_errors() {
    let rate = |value| vec![("producer_byte_rate", Some(value))];
    let user = vec![("user", Some("u"))];
    for (parts, ops, part) in [
        (vec![], rate(1.0), "Invalid empty client quota entity"),
        (vec![("user", Some(""))], rate(1.0), "Empty user not supported"),
        (vec![("host", Some("x"))], rate(1.0), "Unhandled client quota entity type: host"),
        (vec![("user", None), ("ip", None)], rate(1.0), "Invalid quota entity combination"),
        (vec![("client-id", None), ("ip", None)], rate(1.0), "Invalid quota entity combination"),
        (vec![("ip", Some("no host"))], vec![("connection_creation_rate", Some(1.0))], "not a valid IP"),
        (vec![("ip", None)], rate(1.0), "Invalid configuration key producer_byte_rate"),
        (
            user.clone(),
            vec![("connection_creation_rate", Some(1.0))],
            "Invalid configuration key connection_creation_rate",
        ),
        (user.clone(), vec![("x", Some(1.0))], "Invalid configuration key x"),
        (user.clone(), rate(0.0), "must be greater than 0"),
        (user.clone(), rate(-1.0), "must be greater than 0"),
        (user.clone(), rate(f64::NAN), "must be greater than 0"),
        (user.clone(), rate(1.5), "cannot be a fractional value"),
        (user.clone(), rate(1e19), "too large for a LONG"),
        (vec![("ip", None)], vec![("connection_creation_rate", Some(2147483648.0))], "too large for an INT"),
        (user.clone(), vec![("x", None), ("x", None)], "Duplicate quota key x"),
        (vec![("user", Some(&*"u".repeat(2000)))], rate(1.0), "2000 bytes"),
    ] {
        let error = planned(alter(&parts, &ops)).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{parts:?}");
        assert!(error.message.contains(part), "{parts:?} {ops:?}: {error}");
    }
}

#[test]
fn only_changes_are_written_and_what_else_stands_there_stays() {
    let user = QuotaEntity::User(Some("u".into()));
    let stored =
        BTreeMap::from([(user.clone(), options(&[("SCRAM-SHA-256", "salt"), ("request_percentage", "50.0")]))]);
    let set = ClientQuotas::new(&stored);
    let planned = |ops: &[(&str, Option<f64>)]| {
        let request = alter(&[("user", Some("u"))], ops);
        let mut planned = plan(&[request], &set, |of| stored.get(of).cloned().unwrap_or_default());
        assert_eq!(planned.outcomes[0].1, Ok(()));
        planned.writes.remove(&user)
    };
    assert_eq!(planned(&[("request_percentage", Some(50.0)), ("producer_byte_rate", None), ("x", None)]), None);
    assert_eq!(planned(&[("request_percentage", None)]), Some(options(&[("SCRAM-SHA-256", "salt")])));
    assert_eq!(planned(&[("SCRAM-SHA-256", None)]), None, "no quota");
}

#[test]
fn each_entity_has_its_own_outcome() {
    let rate = [("producer_byte_rate", Some(5.0))];
    let (good, bad) = (alter(&[("user", Some("a"))], &rate), alter(&[("user", Some(""))], &rate));
    let again = alter(&[("user", Some("a"))], &[("producer_byte_rate", Some(6.0))]);
    let planned = plan(&[good.clone(), bad, again], &ClientQuotas::default(), |_| Options::new());
    let told: Vec<_> = planned.outcomes.iter().map(|(_, outcome)| outcome.clone().map_err(|e| e.message)).collect();
    assert_eq!(told.len(), 2, "an entity is answered once");
    assert!(matches!(&told[0], Err(why) if why.contains("Ignoring duplicate entity user=a")), "{told:?}");
    assert!(matches!(&told[1], Err(why) if why.contains("Empty user")), "{told:?}");
    assert_eq!(planned.writes[&QuotaEntity::User(Some("a".into()))], options(&[("producer_byte_rate", "5")]));
}

#[test]
fn entities_have_a_bound() {
    let client = |n: usize| QuotaEntity::Client(Some(n.to_string().into()));
    let stored: BTreeMap<_, _> =
        (0..MAX_ENTITIES).map(|n| (client(n), options(&[("producer_byte_rate", "5")]))).collect();
    let set = ClientQuotas::new(&stored);
    let change = |name: &str, value| alter(&[("client-id", Some(name))], &[("producer_byte_rate", value)]);
    let codes = |requests: &[AlterQuotas]| -> Vec<i16> {
        let planned = plan(requests, &set, |of| stored.get(of).cloned().unwrap_or_default());
        planned.outcomes.iter().map(|(_, outcome)| outcome.as_ref().err().map_or(0, |e| e.code.code())).collect()
    };
    let beyond = || change("x", Some(1.0));
    assert_eq!(codes(&[beyond(), change("7", Some(1.0))]), [ErrorCode::PolicyViolation.code(), 0]);
    assert_eq!(codes(&[change("7", None), beyond()]), [0, 0]);
}

fn filter(components: &[(&str, i8, Option<&str>)], strict: bool) -> Result<QuotaFilter, ControlError> {
    let components = components.iter().map(|(kind, by, name)| (kind.to_string(), *by, name.map(str::to_owned)));
    QuotaFilter::new(components.collect(), strict)
}

#[test]
fn filters_match_as_kafkas_do() {
    let name = |text: &str| Some(text.into());
    let all = [
        QuotaEntity::User(name("u")),
        QuotaEntity::User(None),
        QuotaEntity::Client(name("c")),
        QuotaEntity::UserClient(name("u"), name("c")),
        QuotaEntity::UserClient(name("u"), None),
        QuotaEntity::Ip(name("10.0.0.1")),
        QuotaEntity::Ip(None),
    ];
    let found = |components: &[(&str, i8, Option<&str>)], strict| -> Vec<usize> {
        let filter = filter(components, strict).unwrap();
        (0..all.len()).filter(|at| filter.matches(&all[*at])).collect()
    };
    assert_eq!(found(&[], false), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(found(&[], true), [0usize; 0]);
    assert_eq!(found(&[("user", 0, Some("u"))], false), [0, 3, 4]);
    assert_eq!(found(&[("user", 0, Some("u"))], true), [0]);
    assert_eq!(found(&[("user", 1, None)], false), [1]);
    assert_eq!(found(&[("user", 2, None)], false), [0, 1, 3, 4]);
    assert_eq!(found(&[("user", 2, None), ("client-id", 1, None)], true), [4]);
    assert_eq!(found(&[("client-id", 2, None)], false), [2, 3, 4]);
    assert_eq!(found(&[("ip", 2, None)], true), [5, 6]);
}

#[test]
fn wrong_filters_have_kafkas_errors() {
    for (components, code, part) in [
        (vec![("", 2, None)], 42, "Invalid empty entity type"),
        (vec![("user", 0, None)], 42, "MATCH_TYPE_EXACT"),
        (vec![("user", 1, Some("a"))], 42, "MATCH_TYPE_DEFAULT"),
        (vec![("user", 2, Some("a"))], 42, "MATCH_TYPE_SPECIFIED"),
        (vec![("user", 9, None)], 42, "Unknown match type 9"),
        (vec![("user", 2, None), ("user", 2, None)], 42, "cannot appear more than once"),
        (vec![("user", 2, None), ("ip", 2, None)], 42, "Invalid entity filter component combination"),
        (vec![("host", 2, None)], 35, "Unsupported entity type host"),
    ] {
        let error = filter(&components, false).unwrap_err();
        assert_eq!(error.code.code(), code, "{components:?}");
        assert!(error.message.contains(part), "{error}");
    }
}
