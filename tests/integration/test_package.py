"""`scripts/package`: what the Debian package and the tarball hold; installed, started, upgraded and removed in a file system of the
test's own (an overlay over the machine's, in a mount namespace)."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tarfile

import pytest

from support import load
from support import broker as brokers

# $1: the test's folder. Its upper layer is memory: the machine sees nothing of it.
INSIDE = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1/layers"
mkdir "$1/layers/upper" "$1/layers/work" "$1/layers/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/layers/upper,workdir=$1/layers/work" "$1/layers/root"
cd "$1/layers/root"
for there in proc sys dev; do mount --rbind /$there $there; done
mount -t tmpfs tmpfs run && mkdir run/test && mount --bind "$1" run/test
mkdir -p var/lib/corelane && mount --bind "$1/data" var/lib/corelane
touch "$1/ready"
exec sleep infinity
"""


class Machine:
    """A root of its own, in which things are installed."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("layers", "data"):
            (folder / name).mkdir(parents=True)
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", INSIDE, "inside", str(folder)]
        self.log = open(folder / "inside.log", "wb")
        self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        for _ in range(300):
            if (folder / "ready").exists():
                return
            if self.popen.poll() is not None:
                break
            signal.sigtimedwait([], 0.1)
        pytest.skip(f"no root of its own can be made here: {(folder / 'inside.log').read_text()}")

    def command(self, *command):
        root = f"{self.folder}/layers/root"
        return ["nsenter", "--target", str(self.popen.pid), "--mount", "chroot", root, *command]

    def run(self, *command, code=0):
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def end(self):
        self.popen.kill()
        self.popen.wait()
        self.log.close()


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The .deb and the tarball of the binary that is tested."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("dpkg-deb is not installed")
    out = tmp_path_factory.mktemp("package")
    env = {**os.environ, "CORELANE_BIN": str(brokers.binary()), "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run([brokers.REPO / "scripts/package", "--out", out], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    [deb], [tarball] = out.glob("*.deb"), out.glob("*.tar.gz")
    assert sorted(p.name for p in out.iterdir()) == sorted([deb.name, tarball.name]), "nothing else is left"
    return deb, tarball


def test_the_package_holds_what_it_should(packages, corelane_only):
    deb, _ = packages
    show = lambda *words: subprocess.run(["dpkg-deb", *words], capture_output=True, text=True, check=True).stdout  # noqa: E731
    control = show("--field", deb)
    assert "Package: corelane\n" in control and re.search(r"^Version: \d+\.\d+\.\d+$", control, re.M) and "@" not in control.replace("corelane@", "")
    held = {line.split()[5]: line.split()[:2] for line in show("--contents", deb).splitlines()}
    for path in [
        "usr/bin/corelane", "usr/lib/systemd/system/corelane.service", "etc/corelane/server.properties", "usr/share/man/man1/corelane.1.gz",
        "usr/share/man/man1/corelane-topic-create.1.gz", "usr/lib/sysctl.d/99-corelane.conf", "usr/lib/udev/rules.d/60-corelane-scheduler.rules",
        "etc/security/limits.d/corelane.conf", "usr/share/bash-completion/completions/corelane", "usr/share/doc/corelane/copyright",
        "usr/share/doc/corelane/docs/CONFIGURATION.md",
    ]:  # fmt: skip
        assert held[f"./{path}"][1] == "root/root", path
    assert held["./usr/bin/corelane"][0] == "-rwxr-xr-x"
    assert not [path for path in held if path.startswith(("./var", "./home", "./root"))]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def members(path):
    """What the headers of a tarball say."""
    with tarfile.open(path) as tarball:
        return [(m.name, m.mode, m.size, m.mtime, m.uid, m.gid, m.type) for m in tarball]


def test_the_same_binary_makes_the_same_packages(packages, tmp_path, corelane_only):
    env = {**os.environ, "CORELANE_BIN": str(brokers.binary()), "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([brokers.REPO / "scripts/package", "--out", tmp_path], env=env, capture_output=True, check=True, timeout=300)
    deb, tarball = packages
    assert members(tmp_path / tarball.name) == members(tarball)
    for made in packages:
        assert digest(tmp_path / made.name) == digest(made), made.name


def test_the_tarball_runs_where_it_is_unpacked(packages, tmp_path, corelane_only):
    _, path = packages
    with tarfile.open(path) as tarball:
        tarball.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    done = subprocess.run([folder / "bin/corelane", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and folder.name.startswith(f"corelane-{done.stdout.split()[1]}-")
    for name in ["LICENSE", "README.md", "tuning/corelane.service", "docs/CLUSTER.md", "share/man/man1/corelane.1", "share/completions/_corelane"]:
        assert (folder / name).stat().st_size > 100, name
    assert not (folder / "tuning/package").exists()


def is_static(path):
    """It names no loader of shared libraries."""
    told = subprocess.run(["readelf", "--program-headers", path], capture_output=True, text=True, check=True).stdout
    return "INTERP" not in told


def test_what_is_built_must_be_static(tmp_path, corelane_only):
    """A cargo that links to the host's libraries stands in for one whose flags were lost."""
    cargo, built = tmp_path / "bin/cargo", tmp_path / f"target/{os.uname().machine}-unknown-linux-gnu/release/corelane"
    cargo.parent.mkdir()
    cargo.write_text(f'#!/bin/sh\necho "$RUSTFLAGS" >"{tmp_path}/flags"\nmkdir -p "{built.parent}" && cp "{shutil.which("ls")}" "{built}"\n')
    cargo.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name != "CORELANE_BIN"}
    env |= {"PATH": f"{cargo.parent}:{env['PATH']}", "CARGO_TARGET_DIR": str(tmp_path / "target")}
    done = subprocess.run([brokers.REPO / "scripts/package", "--out", tmp_path / "out"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "is not linked statically" in done.stderr, done.stdout + done.stderr
    assert "+crt-static" in (tmp_path / "flags").read_text() and not (tmp_path / "out").exists()


# Nothing is in the root but the binary, its data and the names of hosts.
BARE = r"""
set -e
mount --make-rprivate /
for there in proc sys dev; do mkdir -p "$1/$there"; mount --rbind /$there "$1/$there"; done
shift
exec chroot "$@"
"""


def test_the_static_binary_needs_no_file_of_the_host(make_broker, root, tmp_path, corelane_only, length, request):
    binary = brokers.binary()
    if not is_static(binary):
        if not length.full:
            pytest.skip("building a static binary takes minutes: with --full, or with one in CORELANE_BIN")
        env = {name: value for name, value in os.environ.items() if name != "CORELANE_BIN"}
        subprocess.run([brokers.REPO / "scripts/package", "--out", tmp_path], env=env, check=True)
        [path] = tmp_path.glob("*.tar.gz")
        with tarfile.open(path) as tarball:
            tarball.extractall(tmp_path, filter="data")
        [binary] = tmp_path.glob("*/bin/corelane")
        assert is_static(binary)
    bare = root / "bare"
    (bare / "etc").mkdir(parents=True)
    shutil.copy(binary, bare / "corelane")
    (bare / "etc/hosts").write_text("127.0.0.1 a-name-of-this-test\n")
    inside = ["unshare", "--mount", "sh", "-c", BARE, "bare", bare, bare, "/corelane"]
    if subprocess.run([*inside, "--version"], capture_output=True).returncode:
        pytest.skip("no root of its own can be made here")
    b = make_broker()
    options = [f"listeners=PLAINTEXT://127.0.0.1:{b.port}", "log.dirs=/data", "corelane.shards=2", "corelane.http.listener="]
    with open(root / "bare.log", "wb") as log:
        overrides = [word for option in options for word in ("--override", option)]
        popen = subprocess.Popen([*inside, "server", *overrides], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    request.addfinalizer(popen.kill)
    for _ in range(300):
        if b.serves():
            break
        assert popen.poll() is None, (root / "bare.log").read_text()[-3000:]
        signal.sigtimedwait([], 0.1)
    load.create_topic(b, "t", 1)
    load.produce_lines(b, "t", 1000, 1)
    load.check_lines(b, "t", 1000, 1)
    # The name is looked up without a library of the host's.
    listed = subprocess.run([*inside, "topic", "list", "--bootstrap-server", f"a-name-of-this-test:{b.port}"], capture_output=True, text=True)
    assert listed.returncode == 0 and re.search(r"^t\b", listed.stdout, re.M), listed.stdout + listed.stderr
    popen.terminate()
    assert popen.wait(60) == 0


def test_it_is_installed_started_upgraded_and_removed(packages, make_broker, root, corelane_only, request):
    deb, _ = packages
    folder = root / "package"
    folder.mkdir()
    machine = Machine(folder)
    request.addfinalizer(machine.end)
    shutil.copy(deb, folder / "corelane.deb")
    told = machine.run("dpkg", "-i", "/run/test/corelane.deb")
    assert "systemctl enable --now corelane" in told
    unit = machine.run("cat", "/usr/lib/systemd/system/corelane.service")
    [start] = re.findall(r"^ExecStart=(.*)$", unit, re.M)
    assert start.startswith("/usr/bin/corelane ") and "sudo" not in unit and "/usr/local" not in unit
    if shutil.which("systemd-analyze"):
        assert machine.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "corelane.service") == ""
    assert ".TH corelane 1" in machine.run("gzip", "-dc", "/usr/share/man/man1/corelane.1.gz")
    assert machine.run("stat", "-c", "%U %a", "/var/lib/corelane").strip() == "corelane 750"

    # As the unit starts it, but for the port.
    b = make_broker()
    listeners = f"listeners=PLAINTEXT://{b.host}:{b.port}"
    machine.run("sed", "-i", f"s|^listeners=.*|{listeners}|", "/etc/corelane/server.properties")
    user = ["setpriv", "--reuid", "corelane", "--regid", "corelane", "--clear-groups", "--no-new-privs"]

    def started():
        log = open(folder / "broker.log", "ab")
        popen = subprocess.Popen(machine.command(*user, *start.split()), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        request.addfinalizer(popen.kill)
        for _ in range(300):
            if b.serves():
                return popen
            assert popen.poll() is None, (folder / "broker.log").read_text()[-3000:]
            signal.sigtimedwait([], 0.1)
        raise AssertionError((folder / "broker.log").read_text()[-3000:])

    popen = started()
    load.create_topic(b, "t", 1)
    load.produce_lines(b, "t", 1000, 1)
    told = machine.run("dpkg", "-i", "/run/test/corelane.deb")
    assert "enable --now" not in told, "an upgrade"
    assert listeners in machine.run("cat", "/etc/corelane/server.properties"), "an upgrade keeps what was changed"
    assert popen.poll() is None and b.serves(), "an upgrade restarts nothing"
    popen.terminate()
    assert popen.wait(60) == 0
    popen = started()
    load.check_lines(b, "t", 1000, 1)
    popen.terminate()
    assert popen.wait(60) == 0

    machine.run("dpkg", "-r", "corelane")
    machine.run("test", "!", "-e", "/usr/bin/corelane")
    assert listeners in machine.run("cat", "/etc/corelane/server.properties")
    told = machine.run("dpkg", "-P", "corelane")
    assert "/var/lib/corelane and the user corelane are left" in told
    machine.run("test", "!", "-e", "/etc/corelane")
    machine.run("test", "-d", "/var/lib/corelane/t-0")
