// Package contract has the part of tests/clients/README.md that all Go clients share: arguments, records as lines of
// JSON, the order of commands, events.
package contract

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Heartbeat is the interval of group members, short so that a rebalance is noticed soon.
const Heartbeat = 300 * time.Millisecond

// Session is the session timeout of group members.
const Session = 10 * time.Second

// Record is one record, of the input of produce and of the output of consume.
type Record struct {
	Partition int32       `json:"p"`
	Offset    int64       `json:"o"`
	Time      int64       `json:"t"`
	Key       *string     `json:"k"`
	Value     *string     `json:"v"`
	Headers   [][2]string `json:"h"`
}

// Text is a record's key or value; nil is null.
func Text(bytes []byte) *string {
	if bytes == nil {
		return nil
	}
	text := string(bytes)
	return &text
}

// Bytes is the inverse of Text.
func Bytes(text *string) []byte {
	if text == nil {
		return nil
	}
	return []byte(*text)
}

// Stamp is the time of a record.
func (r Record) Stamp() time.Time { return time.UnixMilli(r.Time) }

// Program is one client: a function for each scenario.
type Program struct {
	Produce func(a Args, records []Record) ([][2]int64, error)
	Consume func(a Args, each func(Record)) error
	Group   func(a Args, m *Member) error
	Admin   func(a Args) (Admin, error)
}

// Admin is the administration of topics. An answer of the broker that is an error carries its code.
type Admin interface {
	Create(topic string, partitions int32, configs map[string]string) (code int, err error)
	Grow(topic string, partitions int32) (code int, err error)
	Delete(topic string) (code int, err error)
	Topics() (map[string]int, error)
	// Offsets are those at a time in ms, of each partition; -1 is the end, -2 the beginning.
	Offsets(topic string, time int64) ([]int64, error)
}

// Args are the arguments after the scenario, name=value.
type Args map[string]string

// Brokers are the addresses to begin with.
func (a Args) Brokers() []string { return strings.Split(a["bootstrap"], ",") }

// Int is a number; 0 when it is not given.
func (a Args) Int(name string) int64 {
	if a[name] == "" {
		return 0
	}
	n, err := strconv.ParseInt(a[name], 10, 64)
	Check(err)
	return n
}

// Check ends the program with a message.
func Check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var (
	outLock sync.Mutex
	out     = bufio.NewWriter(os.Stdout)
)

// Tell prints a value as a line of JSON.
func Tell(value any) {
	outLock.Lock()
	defer outLock.Unlock()
	line, err := json.Marshal(value)
	Check(err)
	out.Write(append(line, '\n'))
	Check(out.Flush())
}

// Main runs the scenario that the command line names.
func Main(p Program) {
	if len(os.Args) < 2 {
		Check(fmt.Errorf("usage: %s produce|consume|group|admin name=value...", os.Args[0]))
	}
	a := Args{}
	for _, arg := range os.Args[2:] {
		name, value, _ := strings.Cut(arg, "=")
		a[name] = value
	}
	switch os.Args[1] {
	case "produce":
		offsets, err := p.Produce(a, readRecords())
		Check(err)
		Tell(map[string]any{"offsets": offsets})
	case "consume":
		Check(p.Consume(a, func(r Record) { Tell(r) }))
	case "group":
		m := newMember()
		Check(p.Group(a, m))
		Tell(map[string]any{"e": "closed"})
	case "admin":
		admin, err := p.Admin(a)
		Check(err)
		commands(admin)
	default:
		Check(fmt.Errorf("unknown scenario %s", os.Args[1]))
	}
}

func readRecords() (records []Record) {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var r Record
		err := in.Decode(&r)
		if err == io.EOF {
			return records
		}
		Check(err)
		records = append(records, r)
	}
}

func commands(admin Admin) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		w := strings.Fields(in.Text())
		number := func(at int) int64 {
			n, err := strconv.ParseInt(w[at], 10, 64)
			Check(err)
			return n
		}
		answer := map[string]any{}
		var code int
		var err error
		switch w[0] {
		case "create":
			configs := map[string]string{}
			for _, pair := range w[3:] {
				name, value, _ := strings.Cut(pair, "=")
				configs[name] = value
			}
			code, err = admin.Create(w[1], int32(number(2)), configs)
		case "grow":
			code, err = admin.Grow(w[1], int32(number(2)))
		case "delete":
			code, err = admin.Delete(w[1])
		case "topics":
			answer["topics"], err = admin.Topics()
		case "offsets":
			answer["offsets"], err = admin.Offsets(w[1], number(2))
		default:
			err = fmt.Errorf("unknown command %s", w[0])
		}
		Check(err)
		answer["error"] = code
		Tell(answer)
	}
}

// Member tells of a member of a group; its input's end asks it to leave.
type Member struct {
	Left chan struct{}
}

func newMember() *Member {
	m := &Member{Left: make(chan struct{})}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(m.Left)
	}()
	return m
}

// Leaving is true once the member has been asked to leave.
func (m *Member) Leaving() bool {
	select {
	case <-m.Left:
		return true
	default:
		return false
	}
}

// Assigned tells the whole assignment.
func (m *Member) Assigned(partitions []int32) {
	sorted := append([]int32{}, partitions...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	Tell(map[string]any{"e": "assigned", "p": sorted})
}

// Took tells a record.
func (m *Member) Took(partition int32, offset int64) {
	Tell(map[string]any{"e": "record", "p": partition, "o": offset})
}

// Failed tells an error that the member goes on after.
func (m *Member) Failed(err error) {
	Tell(map[string]any{"e": "failed", "error": err.Error()})
}

// Committed tells offsets, each the next to be read, once the broker acknowledged them.
func (m *Member) Committed(offsets map[int32]int64) {
	list := [][2]int64{}
	for p, o := range offsets {
		list = append(list, [2]int64{int64(p), o})
	}
	Tell(map[string]any{"e": "committed", "o": list})
}
