use super::*;

fn set_all(text: &str) -> Result<ServerConfig, String> {
    let mut config = ServerConfig::default();
    set(&mut config, &split_list(text)).map(|()| config)
}

fn roles(map: &str) -> Roles {
    Roles::new(Some(map).filter(|map| !map.is_empty()), "CONTROLLER")
}

fn select(list: &str, map: &str) -> Result<Vec<String>, Unfit> {
    roles(map).select(&split_list(list))
}

#[test]
fn hosts_ports_and_their_advertised_default() {
    let config = set_all("PLAINTEXT://127.0.0.2:19092").unwrap();
    assert_eq!((urls(&config).as_str(), advertised_urls(&config)), ("PLAINTEXT://127.0.0.2:19092", urls(&config)));
    let config = set_all("plaintext://[::1]:9093").unwrap();
    assert_eq!((urls(&config).as_str(), advertised_urls(&config)), ("PLAINTEXT://[::1]:9093", urls(&config)));
    let config = set_all("PLAINTEXT://:9092").unwrap();
    assert_eq!(config.listeners[0].address.to_string(), "0.0.0.0:9092");
    let host = &config.listeners[0].advertised.as_ref().unwrap().host;
    assert!(!host.is_empty() && host != "0.0.0.0");
    assert_eq!(advertised_urls(&set_all("PLAINTEXT://localhost:9092").unwrap()), "PLAINTEXT://localhost:9092");
}

#[test]
fn several_listeners_advertise_what_is_theirs() {
    let mut config = set_all("internal://127.0.0.1:9092,EXTERNAL://:9094,OTHER://127.0.0.1:9095").unwrap();
    let host = machine_name();
    assert_eq!(
        advertised_urls(&config),
        format!("INTERNAL://127.0.0.1:9092,EXTERNAL://{host}:9094,OTHER://127.0.0.1:9095")
    );
    // Advertised addresses may share a port, also with other listeners.
    set_advertised(&mut config, &split_list("EXTERNAL://broker.example.org:9092,Internal://:9092")).unwrap();
    assert_eq!(advertised_urls(&config), format!("INTERNAL://{host}:9092,EXTERNAL://broker.example.org:9092"));
    assert_eq!(config.listeners[2].advertised, None, "it is not named");
    for name in ["internal", "EXTERNAL", ""] {
        assert_eq!(set_inter_broker(&mut config, name), Ok(()), "{name}");
    }
    for name in ["OTHER", "CONTROLLER"] {
        assert!(set_inter_broker(&mut config, name).unwrap_err().contains("INTERNAL, EXTERNAL"), "{name}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for bad in [
        "localhost:9092",
        "PLAINTEXT://a",
        "PLAINTEXT://a:0",
        "PLAINTEXT://a:70000",
        "PLAINTEXT://a/b:1",
        "PLAINTEXT://[x]:1",
        "://a:1",
    ] {
        let error = set_all(bad).unwrap_err();
        assert!(error.contains(bad) && error.contains("PLAINTEXT://host:port"), "{error}");
    }
    let mut config = ServerConfig::default();
    for bad in ["PLAINTEXT://0.0.0.0:9092", "PLAINTEXT://[::]:9092", "B://h:1", "PLAINTEXT://h:1,B://h:1"] {
        assert!(set_advertised(&mut config, &split_list(bad)).is_err(), "{bad}");
    }
    assert!(set_advertised(&mut config, &split_list("PLAINTEXT://h:1,plaintext://g:2")).unwrap_err().contains("two"));
    set_advertised(&mut config, &["PLAINTEXT://my_broker.example.org:9".into()]).unwrap();
    assert_eq!(advertised_urls(&config), "PLAINTEXT://my_broker.example.org:9");
}

/// As Kafka 4.3 answers each of them.
#[test]
fn names_and_ports_are_checked_over_all_listeners() {
    let map = "A:PLAINTEXT,B:PLAINTEXT,C:PLAINTEXT,CONTROLLER:PLAINTEXT";
    for bad in [
        "A://:9092,B://:9092",
        "A://10.0.0.1:9092,B://10.0.0.2:9092",
        "A://localhost:9092,B://[::1]:9092",
        "A://127.0.0.1:9092,B://[::1]:9092,C://[::2]:9092",
        "A://127.0.0.1:9092,CONTROLLER://:9092",
        "A://:9092,a://:9093",
        "A://:9092,CONTROLLER://:9093,CONTROLLER://:9094",
    ] {
        assert!(matches!(select(bad, map), Err(Unfit::Invalid(_))), "{bad}");
    }
    let same_port = "A://127.0.0.1:9092,B://[::1]:9092";
    assert_eq!(select(same_port, map), Ok(split_list(same_port)));
}

#[test]
fn each_listener_has_the_protocol_of_the_map() {
    let invalid = |list: &str, map: &str, name: &str| match select(list, map) {
        Err(Unfit::Invalid(text)) => {
            assert!(text.contains("no security protocol") && text.contains(&format!("{name}:PLAINTEXT")), "{text}")
        }
        other => panic!("{list} with {map}: {other:?}"),
    };
    invalid("CLIENT://:9092", "", "CLIENT");
    invalid("PLAINTEXT://:9092", "CLIENT:PLAINTEXT", "PLAINTEXT");
    invalid("PLAINTEXT://:9092,CONTROLLER://:9093", "PLAINTEXT:PLAINTEXT", "CONTROLLER");
    for (list, map, protocol) in [
        ("SSL://:9092", "", "SSL"),
        ("SASL_PLAINTEXT://:9092", "", "SASL_PLAINTEXT"),
        ("INTERNAL://:9092,EXTERNAL://:9093", "INTERNAL:PLAINTEXT,EXTERNAL:SASL_SSL", "EXTERNAL is to use SASL_SSL"),
        ("PLAINTEXT://:9092", "PLAINTEXT:PLAINTEXT,PLAINTEXT:SSL", "PLAINTEXT is to use SSL"),
    ] {
        match select(list, map) {
            Err(Unfit::Refused(text)) => assert!(text.contains(protocol), "{text}"),
            other => panic!("{list} with {map}: {other:?}"),
        }
    }
    // Nothing listens as a controller, so its protocol leaves nothing open.
    for map in ["", "PLAINTEXT:plaintext,CONTROLLER:SASL_SSL", " plaintext : PLAINTEXT , CONTROLLER:PLAINTEXT, X:SSL"] {
        assert_eq!(select("PLAINTEXT://:9092,CONTROLLER://:9093", map), Ok(vec!["PLAINTEXT://:9092".into()]), "{map}");
    }
    assert!(matches!(select("CONTROLLER://:9093", ""), Err(Unfit::Invalid(text)) if text.contains("for clients")));
    let advertised = |list: &str| roles("").select_advertised(&split_list(list));
    assert!(matches!(advertised("CONTROLLER://:9093"), Err(Unfit::Invalid(text)) if text.contains("for clients")));
    assert_eq!(advertised("A://h:1,CONTROLLER://h:1"), Ok(vec!["A://h:1".into()]));
    assert_eq!(advertised(""), Ok(vec![]));
}

#[test]
fn a_map_is_names_with_known_protocols() {
    for (bad, word) in [("PLAINTEXT", "NAME:PROTOCOL"), (":SSL", "NAME:PROTOCOL"), ("A:PLAIN", "protocol PLAIN")] {
        assert!(parse_map(bad).unwrap_err().contains(word), "{bad}");
    }
    assert_eq!(parse_map(""), Ok(BTreeMap::new()));
}
