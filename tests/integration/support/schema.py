"""Any request in any version, by the message definitions that ship inside Kafka's client jar.

`call(conn, "JoinGroup", 9, GroupId="g", ...)` sends a request and answers the response as a `Struct`. Fields have Kafka's names;
what is not given has its default, what a version does not have is left out (sent) or has its default (received). A response that
holds more bytes than its definition says is an error.
"""

import functools
import json
import re
import zipfile
from pathlib import Path

from . import java, wire


class Struct(dict):
    """A dict whose entries are attributes too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _versions(text):
    """"3+", "2-7", "5" or "none" as a pair."""
    if not text or text == "none":
        return (1, 0)
    low, _, high = text.partition("-")
    if low.endswith("+"):
        return (int(low[:-1]), 1 << 15)
    return (int(low), int(high or low))


PRIMITIVES = {"bool": "i8", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "float64": "f64", "uuid": "uuid", "string": "string", "bytes": "bytes"}
NIL = wire.uuid.UUID(int=0)


class Field:
    def __init__(self, spec, message):
        self.name, self.message = spec["name"], message
        self.versions = _versions(spec["versions"])
        self.nullable = _versions(spec.get("nullableVersions"))
        self.tagged, self.tag = _versions(spec.get("taggedVersions")), spec.get("tag")
        self.array = spec["type"].startswith("[]")
        self.type = spec["type"].removeprefix("[]")
        self.fields = [Field(f, message) for f in spec.get("fields", ())] or None
        self.default = self._default(spec.get("default"))

    def _default(self, given):
        if given == "null":
            return None
        if self.array:
            return []
        if self.type == "float64":
            return float(given or 0)
        if self.type in ("int8", "int16", "int32", "int64"):
            return int(str(given or 0), 0)
        return {"bool": str(given).lower() == "true", "string": given or "", "bytes": b"", "uuid": NIL}.get(self.type)

    def struct(self):
        return self.fields or self.message.structs[self.type]

    def there(self, version):
        return self.versions[0] <= version <= self.versions[1]

    def is_tagged(self, version):
        return self.tag is not None and self.tagged[0] <= version <= self.tagged[1]

    def may_be_null(self, version):
        return self.nullable[0] <= version <= self.nullable[1]

    def write(self, w, version, value):
        if self.array:
            w.count(None if value is None else len(value))
            for item in value or ():
                self._write_one(w, version, item)
        elif self.type not in PRIMITIVES and self.may_be_null(version):
            w.i8(-1 if value is None else 1)
            if value is not None:
                self._write_one(w, version, value)
        else:
            self._write_one(w, version, value)

    def _write_one(self, w, version, value):
        if self.type in PRIMITIVES:
            getattr(w, PRIMITIVES[self.type])(value)
        else:
            write_struct(self.struct(), w, version, value)

    def read(self, r, version):
        if self.array:
            n = r.count()
            return None if n < 0 else [self._read_one(r, version) for _ in range(n)]
        if self.type not in PRIMITIVES and self.may_be_null(version) and r.i8() < 0:
            return None
        return self._read_one(r, version)

    def _read_one(self, r, version):
        if self.type in PRIMITIVES:
            value = getattr(r, PRIMITIVES[self.type])()
            return bool(value) if self.type == "bool" else value
        return read_struct(self.struct(), r, version)


def write_struct(fields, w, version, values):
    unknown = set(values) - {f.name for f in fields}
    assert not unknown, f"no such fields: {unknown}, there are {[f.name for f in fields]}"
    tagged = []
    for f in fields:
        if not f.there(version):
            continue
        value = values.get(f.name, f.default)
        if not f.is_tagged(version):
            f.write(w, version, value)
        elif value != f.default:
            tagged.append((f, value))
    if w.flex:
        w.raw(wire.uvarint(len(tagged)))
        for f, value in sorted(tagged, key=lambda t: t[0].tag):
            inner = wire.Writer(True)
            f.write(inner, version, value)
            data = inner.done()
            w.raw(wire.uvarint(f.tag) + wire.uvarint(len(data)) + data)


def read_struct(fields, r, version):
    out = Struct((f.name, f.default) for f in fields)
    for f in fields:
        if f.there(version) and not f.is_tagged(version):
            out[f.name] = f.read(r, version)
    if r.flex:
        by_tag = {f.tag: f for f in fields if f.is_tagged(version)}
        for _ in range(r.uvarint()):
            tag, data = r.uvarint(), None
            data = r.take(r.uvarint())
            if tag in by_tag:
                out[by_tag[tag].name] = by_tag[tag].read(wire.Reader(data, True), version)
    return out


class Message:
    def __init__(self, text):
        spec = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))
        self.name, self.api = spec["name"], spec.get("apiKey")
        self.versions, self.flexible = _versions(spec["validVersions"]), _versions(spec["flexibleVersions"])
        self.structs = {s["name"]: [Field(f, self) for f in s["fields"]] for s in spec.get("commonStructs", ())}
        self.fields = [Field(f, self) for f in spec["fields"]]

    def is_flexible(self, version):
        return self.flexible[0] <= version <= self.flexible[1]

    def encode(self, version, values):
        w = wire.Writer(self.is_flexible(version))
        write_struct(self.fields, w, version, values)
        return w.done()

    def decode(self, version, data):
        """`data`: bytes, or a Reader that stands behind the header."""
        r = data if isinstance(data, wire.Reader) else wire.Reader(data, self.is_flexible(version))
        out = read_struct(self.fields, r, version)
        assert r.left() == 0, f"{self.name} v{version}: {r.left()} bytes more than its definition says, after {out}"
        return out


@functools.cache
def message(name):
    jar = next(Path(java.libs()).glob("kafka-clients-*.jar"))
    with zipfile.ZipFile(jar) as z:
        return Message(z.read(f"common/message/{name}.json").decode())


def send(conn, api, version, **values):
    """Sends without waiting for the answer, which `receive` takes."""
    request = message(f"{api}Request")
    return conn.send(request.api, version, request.encode(version, values))


def receive(conn, api, version):
    _, reader = conn.recv()
    return message(f"{api}Response").decode(version, reader)


def call(conn, api, version, **values):
    send(conn, api, version, **values)
    return receive(conn, api, version)
