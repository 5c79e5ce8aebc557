// franz-go under the contract of tests/clients/README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"corelane.tests/clients/contract"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	contract.Main(contract.Program{Produce: produce, Consume: consume, Group: group, Admin: admin})
}

func client(a contract.Args, options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(a.Brokers()...))...)
}

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func produce(a contract.Args, records []contract.Record) ([][2]int64, error) {
	acks := map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}[a["acks"]]
	options := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[a["codec"]]),
		kgo.RequiredAcks(acks),
		kgo.ProducerLinger(5 * time.Millisecond),
	}
	if a["idempotent"] != "true" {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	cl, err := client(a, options...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	offsets := make([][2]int64, len(records))
	var all sync.WaitGroup
	var lock sync.Mutex
	var failed error
	for i, r := range records {
		out := &kgo.Record{
			Topic: a["topic"], Partition: r.Partition, Timestamp: r.Stamp(),
			Key: contract.Bytes(r.Key), Value: contract.Bytes(r.Value),
		}
		for _, h := range r.Headers {
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
		}
		all.Add(1)
		cl.Produce(context.Background(), out, func(done *kgo.Record, err error) {
			defer all.Done()
			lock.Lock()
			defer lock.Unlock()
			offsets[i] = [2]int64{int64(done.Partition), done.Offset}
			failed = errors.Join(failed, err)
		})
	}
	all.Wait()
	return offsets, failed
}

func consume(a contract.Args, each func(contract.Record)) error {
	from := kgo.NewOffset().AtStart()
	if a["offset"] != "" {
		from = kgo.NewOffset().At(a.Int("offset"))
	}
	parts := map[int32]kgo.Offset{}
	for p := range int32(a.Int("partitions")) {
		parts[p] = from
	}
	options := []kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{a["topic"]: parts})}
	if a["wait"] != "" {
		options = append(options, kgo.FetchMaxWait(time.Duration(a.Int("wait"))*time.Millisecond))
	}
	cl, err := client(a, options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for left := a.Int("count"); left > 0; {
		fetches := cl.PollFetches(context.Background())
		for _, e := range fetches.Errors() {
			return fmt.Errorf("partition %d: %w", e.Partition, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			headers := [][2]string{}
			for _, h := range r.Headers {
				headers = append(headers, [2]string{h.Key, string(h.Value)})
			}
			each(contract.Record{
				Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp.UnixMilli(),
				Key: contract.Text(r.Key), Value: contract.Text(r.Value), Headers: headers,
			})
		})
	}
	return nil
}

func group(a contract.Args, m *contract.Member) error {
	var lock sync.Mutex
	own := map[int32]bool{}
	moved := func(to bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			lock.Lock()
			defer lock.Unlock()
			for _, p := range partitions[a["topic"]] {
				if to {
					own[p] = true
				} else {
					delete(own, p)
				}
			}
			all := []int32{}
			for p := range own {
				all = append(all, p)
			}
			m.Assigned(all)
		}
	}
	cl, err := client(a,
		kgo.ConsumerGroup(a["group"]), kgo.ConsumeTopics(a["topic"]), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(contract.Heartbeat), kgo.SessionTimeout(contract.Session), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(moved(true)), kgo.OnPartitionsRevoked(moved(false)), kgo.OnPartitionsLost(moved(false)),
	)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-m.Left
		cancel()
	}()
	for !m.Leaving() {
		fetches := cl.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.Canceled) {
				m.Failed(fmt.Errorf("partition %d: %w", e.Partition, e.Err))
			}
		}
		offsets := map[int32]int64{}
		fetches.EachRecord(func(r *kgo.Record) {
			m.Took(r.Partition, r.Offset)
			offsets[r.Partition] = r.Offset + 1
		})
		if len(offsets) > 0 {
			if err := cl.CommitUncommittedOffsets(context.Background()); err != nil {
				m.Failed(err)
			} else {
				m.Committed(offsets)
			}
		}
		cl.AllowRebalance()
	}
	cl.CloseAllowingRebalance()
	return nil
}

type topics struct{ *kadm.Client }

func admin(a contract.Args) (contract.Admin, error) {
	cl, err := client(a, kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return topics{kadm.NewClient(cl)}, nil
}

// The code of an error that the broker answered, apart from other errors.
func coded(err error) (int, error) {
	var answered *kerr.Error
	if errors.As(err, &answered) {
		return int(answered.Code), nil
	}
	return 0, err
}

func (t topics) Create(topic string, partitions int32, configs map[string]string) (int, error) {
	given := map[string]*string{}
	for name, value := range configs {
		given[name] = &value
	}
	_, err := t.CreateTopic(context.Background(), partitions, 1, given, topic)
	return coded(err)
}

func (t topics) Grow(topic string, partitions int32) (int, error) {
	done, err := t.UpdatePartitions(context.Background(), int(partitions), topic)
	if err == nil {
		err = done.Error()
	}
	return coded(err)
}

func (t topics) Delete(topic string) (int, error) {
	_, err := t.DeleteTopic(context.Background(), topic)
	return coded(err)
}

func (t topics) Topics() (map[string]int, error) {
	listed, err := t.ListTopics(context.Background())
	found := map[string]int{}
	for _, topic := range listed {
		found[topic.Topic] = len(topic.Partitions)
	}
	return found, err
}

func (t topics) Offsets(topic string, at int64) ([]int64, error) {
	ctx := context.Background()
	var listed kadm.ListedOffsets
	var err error
	switch at {
	case -1:
		listed, err = t.ListEndOffsets(ctx, topic)
	case -2:
		listed, err = t.ListStartOffsets(ctx, topic)
	case -3:
		listed, err = t.ListMaxTimestampOffsets(ctx, topic)
	default:
		listed, err = t.ListOffsetsAfterMilli(ctx, at, topic)
	}
	if err == nil {
		err = listed.Error()
	}
	offsets := make([]int64, len(listed[topic]))
	for p, o := range listed[topic] {
		offsets[p] = o.Offset
	}
	return offsets, err
}
