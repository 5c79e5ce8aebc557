// kafka-go under the contract of tests/clients/README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"corelane.tests/clients/contract"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
)

func main() {
	contract.Main(contract.Program{Produce: produce, Consume: consume, Group: group, Admin: admin})
}

var codecs = map[string]compress.Compression{
	"none":   compress.None,
	"gzip":   compress.Gzip,
	"snappy": compress.Snappy,
	"lz4":    compress.Lz4,
	"zstd":   compress.Zstd,
}

// place is the partition that a record is meant for, carried beside the message.
type place struct {
	partition int32
	index     int
}

func produce(a contract.Args, records []contract.Record) ([][2]int64, error) {
	offsets := make([][2]int64, len(records))
	var lock sync.Mutex
	var failed error
	acks := map[string]kafka.RequiredAcks{"0": kafka.RequireNone, "1": kafka.RequireOne, "all": kafka.RequireAll}
	w := &kafka.Writer{
		Addr: kafka.TCP(a.Brokers()...), Topic: a["topic"], RequiredAcks: acks[a["acks"]],
		Compression: codecs[a["codec"]], BatchTimeout: 5 * time.Millisecond, MaxAttempts: 1,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int {
			return int(m.WriterData.(place).partition)
		}),
		Completion: func(done []kafka.Message, err error) {
			lock.Lock()
			defer lock.Unlock()
			failed = errors.Join(failed, err)
			for _, m := range done {
				offsets[m.WriterData.(place).index] = [2]int64{int64(m.Partition), m.Offset}
			}
		},
	}
	messages := make([]kafka.Message, len(records))
	for i, r := range records {
		messages[i] = kafka.Message{
			Key: contract.Bytes(r.Key), Value: contract.Bytes(r.Value), Time: r.Stamp(), WriterData: place{r.Partition, i},
		}
		for _, h := range r.Headers {
			messages[i].Headers = append(messages[i].Headers, kafka.Header{Key: h[0], Value: []byte(h[1])})
		}
	}
	err := w.WriteMessages(context.Background(), messages...)
	err = errors.Join(err, w.Close())
	lock.Lock()
	defer lock.Unlock()
	return offsets, errors.Join(err, failed)
}

// reader reads one partition from an offset into a channel until the context ends.
func reader(ctx context.Context, a contract.Args, p int, from int64, came chan<- kafka.Message) error {
	wait := 500 * time.Millisecond
	if a["wait"] != "" {
		wait = time.Duration(a.Int("wait")) * time.Millisecond
	}
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: a.Brokers(), Topic: a["topic"], Partition: p, MinBytes: 1, MaxBytes: 10 << 20, MaxWait: wait,
	})
	defer r.Close()
	if err := r.SetOffset(from); err != nil {
		return err
	}
	for {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return err
		}
		select {
		case came <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func consume(a contract.Args, each func(contract.Record)) error {
	from := kafka.FirstOffset
	if a["offset"] != "" {
		from = a.Int("offset")
	}
	came, failed := make(chan kafka.Message), make(chan error)
	for p := range int(a.Int("partitions")) {
		go func() { failed <- fmt.Errorf("partition %d: %w", p, reader(context.Background(), a, p, from, came)) }()
	}
	for left := a.Int("count"); left > 0; left-- {
		select {
		case err := <-failed:
			return err
		case m := <-came:
			headers := [][2]string{}
			for _, h := range m.Headers {
				headers = append(headers, [2]string{h.Key, string(h.Value)})
			}
			each(contract.Record{
				Partition: int32(m.Partition), Offset: m.Offset, Time: m.Time.UnixMilli(),
				Key: contract.Text(m.Key), Value: contract.Text(m.Value), Headers: headers,
			})
		}
	}
	return nil
}

func group(a contract.Args, m *contract.Member) error {
	members, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: a["group"], Brokers: a.Brokers(), Topics: []string{a["topic"]},
		HeartbeatInterval: contract.Heartbeat, SessionTimeout: contract.Session, StartOffset: kafka.FirstOffset,
		RebalanceTimeout: contract.Session, JoinGroupBackoff: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-m.Left
		cancel()
	}()
	for !m.Leaving() {
		generation, err := members.Next(ctx)
		if m.Leaving() {
			break
		}
		if err != nil {
			m.Failed(err)
			continue
		}
		own := []int32{}
		for _, part := range generation.Assignments[a["topic"]] {
			own = append(own, int32(part.ID))
			generation.Start(func(ctx context.Context) {
				// Its end is the generation's: the member joins again.
				if err := follow(ctx, a, m, generation, part); err != nil {
					m.Failed(err)
				}
			})
		}
		m.Assigned(own)
	}
	return members.Close()
}

// follow reads one partition and commits each record, for as long as the generation lasts.
func follow(ctx context.Context, a contract.Args, m *contract.Member, g *kafka.Generation, part kafka.PartitionAssignment) error {
	came, ended := make(chan kafka.Message), make(chan error, 1)
	go func() { ended <- reader(ctx, a, part.ID, part.Offset, came) }()
	for {
		select {
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case message := <-came:
			m.Took(int32(message.Partition), message.Offset)
			next := map[int]int64{message.Partition: message.Offset + 1}
			if err := g.CommitOffsets(map[string]map[int]int64{a["topic"]: next}); err != nil {
				return err
			}
			m.Committed(map[int32]int64{int32(message.Partition): message.Offset + 1})
		}
	}
}

type topics struct{ *kafka.Client }

func admin(a contract.Args) (contract.Admin, error) {
	address, err := net.ResolveTCPAddr("tcp", a.Brokers()[0])
	// Its own metadata would otherwise be up to six seconds old.
	transport := &kafka.Transport{MetadataTTL: 50 * time.Millisecond}
	return topics{&kafka.Client{Addr: address, Timeout: 30 * time.Second, Transport: transport}}, err
}

// The code of an error that the broker answered, apart from other errors.
func coded(err error, answered error) (int, error) {
	var code kafka.Error
	if err == nil && errors.As(answered, &code) {
		return int(code), nil
	}
	return 0, errors.Join(err, answered)
}

func (t topics) Create(topic string, partitions int32, configs map[string]string) (int, error) {
	given := kafka.TopicConfig{Topic: topic, NumPartitions: int(partitions), ReplicationFactor: 1}
	for name, value := range configs {
		given.ConfigEntries = append(given.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	done, err := t.CreateTopics(context.Background(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{given}})
	if err != nil {
		return 0, err
	}
	return coded(err, done.Errors[topic])
}

func (t topics) Grow(topic string, partitions int32) (int, error) {
	done, err := t.CreatePartitions(context.Background(), &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: partitions}},
	})
	if err != nil {
		return 0, err
	}
	return coded(err, done.Errors[topic])
}

func (t topics) Delete(topic string) (int, error) {
	done, err := t.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return 0, err
	}
	return coded(err, done.Errors[topic])
}

func (t topics) Topics() (map[string]int, error) {
	listed, err := t.Metadata(context.Background(), &kafka.MetadataRequest{})
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, topic := range listed.Topics {
		found[topic.Name] = len(topic.Partitions)
	}
	return found, nil
}

func (t topics) Offsets(topic string, at int64) ([]int64, error) {
	listed, err := t.Topics()
	if err != nil {
		return nil, err
	}
	asked := []kafka.OffsetRequest{}
	for p := range listed[topic] {
		asked = append(asked, kafka.OffsetRequest{Partition: p, Timestamp: at})
	}
	found, err := t.ListOffsets(context.Background(), &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: asked},
	})
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, len(asked))
	for _, part := range found.Topics[topic] {
		if part.Error != nil {
			return nil, part.Error
		}
		switch at {
		case kafka.FirstOffset:
			offsets[part.Partition] = part.FirstOffset
		case kafka.LastOffset:
			offsets[part.Partition] = part.LastOffset
		default:
			offsets[part.Partition] = -1
			for offset := range part.Offsets {
				offsets[part.Partition] = offset
			}
		}
	}
	return offsets, nil
}
