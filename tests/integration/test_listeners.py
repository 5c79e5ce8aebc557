"""Several listeners: each tells its clients its own addresses, and all serve the same partitions and groups."""

import types

import pytest

from support import broker as brokers
from support import groups, load, schema, wire


def several(make_broker, names, advertised=None, **props):
    """A broker with these listeners on ports of their own, started. `advertised`: address by name, all when not given."""
    ports = {name: brokers.free_port() for name in names}
    listeners = [f"{name}://{brokers.HOST}:{port}" for name, port in ports.items()]
    b = make_broker()
    if b.kind == "kafka":
        listeners.append(f"CONTROLLER://{brokers.HOST}:{b.controller_port}")
    b.props = {
        "listeners": ",".join(listeners),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in (*names, "CONTROLLER")),
        "inter.broker.listener.name": names[0],
        "advertised.listeners": ",".join(
            f"{name}://{(advertised or {}).get(name) or f'{brokers.HOST}:{port}'}"
            for name, port in ports.items() if advertised is None or name in advertised
        ),
        **props,
    }  # fmt: skip
    b.port = ports[names[0]]
    b.start()
    return b, {name: types.SimpleNamespace(host=brokers.HOST, port=port, bootstrap=f"{brokers.HOST}:{port}") for name, port in ports.items()}


def addresses(at):
    """What Metadata, DescribeCluster and FindCoordinator tell a client of this listener."""
    with wire.Conn(at) as conn:
        told = schema.call(conn, "Metadata", 12, Topics=None)
        cluster = schema.call(conn, "DescribeCluster", 1)
        found = schema.call(conn, "FindCoordinator", 4, CoordinatorKeys=["g"]).Coordinators[0]
    nodes = lambda answer: [(b.Host, b.Port) for b in answer.Brokers]
    return nodes(told), nodes(cluster), (found.ErrorCode, found.Host, found.Port)


def test_each_listener_tells_its_own_address(make_broker):
    b, at = several(make_broker, ["INTERNAL", "EXTERNAL"], {"INTERNAL": None, "EXTERNAL": "outside.example.org:19092"})
    load.create_topic(b, "t", 1)
    groups.wait_ready(b, "g")
    for name, expected in (("INTERNAL", (brokers.HOST, at["INTERNAL"].port)), ("EXTERNAL", ("outside.example.org", 19092))):
        told, cluster, found = addresses(at[name])
        assert (told, cluster, found) == ([expected], [expected], (0, *expected)), name
    # It serves a moment before it says so.
    b.stop()
    if b.kind == "corelane":
        for name, listener in at.items():
            assert f"{name}://{listener.bootstrap}" in b.log_text()


def test_clients_of_both_listeners_meet(make_broker):
    b, at = several(make_broker, ["INTERNAL", "EXTERNAL", "CLIENT_3"])
    load.create_topic(b, "t", 3)
    load.produce_lines(at["EXTERNAL"], "t", 300, 3)
    for listener in at.values():
        load.check_lines(listener, "t", 300, 3)


def test_a_listener_that_is_not_advertised(make_broker):
    """Its clients are told of no broker, and why, as Kafka does."""
    b, at = several(make_broker, ["INTERNAL", "EXTERNAL"], {"INTERNAL": None})
    load.create_topic(b, "t", 1)
    told, cluster, (code, *_) = addresses(at["EXTERNAL"])
    assert (told, cluster, code) == ([], [], wire.ERR["COORDINATOR_NOT_AVAILABLE"])
    with wire.Conn(at["EXTERNAL"]) as conn:
        for version, error in ((5, 5), (12, 72)):
            p = schema.call(conn, "Metadata", version, Topics=[{"Name": "t"}]).Topics[0].Partitions[0]
            assert (p.ErrorCode, p.LeaderId, p.OfflineReplicas) == (error, -1, [0])


def test_two_families_on_one_port(make_broker):
    b = make_broker()
    listeners = f"FOUR://127.0.0.1:{b.port},SIX://[::1]:{b.port}"
    controller = f",CONTROLLER://{brokers.HOST}:{b.controller_port}" if b.kind == "kafka" else ""
    b.props = {
        "listeners": listeners + controller, "inter.broker.listener.name": "FOUR",
        "listener.security.protocol.map": "FOUR:PLAINTEXT,SIX:PLAINTEXT,CONTROLLER:PLAINTEXT", "advertised.listeners": listeners,
    }  # fmt: skip
    b.start()
    assert addresses(b)[0] == [("127.0.0.1", b.port)]
    assert addresses(types.SimpleNamespace(host="::1", port=b.port))[0] == [("::1", b.port)]


@pytest.mark.parametrize("props", [
    {"listeners": "A://127.0.0.1:{0},B://127.0.0.1:{0}"},
    {"listeners": "A://127.0.0.1:{0},a://127.0.0.1:{1}"},
    {"listener.security.protocol.map": "A:PLAINTEXT"},
    {"listener.security.protocol.map": "A:PLAINTEXT,B:PLAIN"},
    {"advertised.listeners": "A://0.0.0.0:{0}"},
    {"advertised.listeners": "A://h:1,C://h:2"},
    {"advertised.listeners": "B://h:1"},
    {"inter.broker.listener.name": "C"},
    {"security.inter.broker.protocol": "PLAINTEXT"},
], ids=lambda props: "=".join(*props.items()))  # fmt: skip
def test_refused_as_kafka_refuses(make_broker, props):
    b = make_broker()
    ports = (b.port, brokers.free_port())
    b.props = {
        "listeners": "A://127.0.0.1:{0},B://127.0.0.1:{1}", "listener.security.protocol.map": "A:PLAINTEXT,B:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "A", "advertised.listeners": "A://h:1,B://h:2", **props,
    }  # fmt: skip
    b.props = {name: value.format(*ports) for name, value in b.props.items()}
    b.prepare = lambda config: None
    if b.kind == "kafka":
        b.props["listeners"] += f",CONTROLLER://127.0.0.1:{b.controller_port}"
    b.spawn()
    assert b.popen.wait(60) != 0, b.log_text()
    said = b.log_text()
    assert b.kind == "kafka" or any(name in said for name in props), said
