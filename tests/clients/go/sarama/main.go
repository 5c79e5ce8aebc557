// Sarama under the contract of tests/clients/README.md. It is built twice: sarama-1.45.0.mod has a version that leaves the
// largest timestamp of a batch at -1.
package main

import (
	"context"
	"errors"
	"time"

	"corelane.tests/clients/contract"
	"github.com/IBM/sarama"
)

func main() {
	contract.Main(contract.Program{Produce: produce, Consume: consume, Group: group, Admin: admin})
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V3_6_0_0
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Heartbeat.Interval = contract.Heartbeat
	c.Consumer.Group.Session.Timeout = contract.Session
	c.Metadata.Retry.Backoff = 50 * time.Millisecond
	return c
}

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func encoded(text *string) sarama.Encoder {
	if text == nil {
		return nil
	}
	return sarama.StringEncoder(*text)
}

func produce(a contract.Args, records []contract.Record) ([][2]int64, error) {
	c := config()
	acks := map[string]sarama.RequiredAcks{"0": sarama.NoResponse, "1": sarama.WaitForLocal, "all": sarama.WaitForAll}
	c.Producer.RequiredAcks = acks[a["acks"]]
	c.Producer.Compression = codecs[a["codec"]]
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Return.Successes = true
	c.Producer.Flush.Frequency = 5 * time.Millisecond
	c.Net.MaxOpenRequests = 1
	c.Producer.Idempotent = a["idempotent"] == "true"
	p, err := sarama.NewSyncProducer(a.Brokers(), c)
	if err != nil {
		return nil, err
	}
	messages := make([]*sarama.ProducerMessage, len(records))
	for i, r := range records {
		messages[i] = &sarama.ProducerMessage{
			Topic: a["topic"], Partition: r.Partition, Timestamp: r.Stamp(), Key: encoded(r.Key), Value: encoded(r.Value),
		}
		for _, h := range r.Headers {
			header := sarama.RecordHeader{Key: []byte(h[0]), Value: []byte(h[1])}
			messages[i].Headers = append(messages[i].Headers, header)
		}
	}
	if err := p.SendMessages(messages); err != nil {
		return nil, err
	}
	offsets := make([][2]int64, len(messages))
	for i, m := range messages {
		offsets[i] = [2]int64{int64(m.Partition), m.Offset}
	}
	return offsets, p.Close()
}

func consume(a contract.Args, each func(contract.Record)) error {
	c := config()
	if a["wait"] != "" {
		c.Consumer.MaxWaitTime = time.Duration(a.Int("wait")) * time.Millisecond
		c.Net.ReadTimeout = c.Consumer.MaxWaitTime + 30*time.Second
	}
	consumer, err := sarama.NewConsumer(a.Brokers(), c)
	if err != nil {
		return err
	}
	from := sarama.OffsetOldest
	if a["offset"] != "" {
		from = a.Int("offset")
	}
	came := make(chan *sarama.ConsumerMessage)
	failed := make(chan error)
	for p := range int32(a.Int("partitions")) {
		part, err := consumer.ConsumePartition(a["topic"], p, from)
		if err != nil {
			return err
		}
		go func() {
			for m := range part.Messages() {
				came <- m
			}
		}()
		go func() {
			for e := range part.Errors() {
				failed <- e
			}
		}()
	}
	for left := a.Int("count"); left > 0; left-- {
		select {
		case err := <-failed:
			return err
		case m := <-came:
			headers := [][2]string{}
			for _, h := range m.Headers {
				headers = append(headers, [2]string{string(h.Key), string(h.Value)})
			}
			each(contract.Record{
				Partition: m.Partition, Offset: m.Offset, Time: m.Timestamp.UnixMilli(),
				Key: contract.Text(m.Key), Value: contract.Text(m.Value), Headers: headers,
			})
		}
	}
	// The consumers of partitions end with the process; closing them would wait for fetches that nothing ends.
	return nil
}

type handler struct {
	topic string
	m     *contract.Member
}

func (h handler) Setup(s sarama.ConsumerGroupSession) error {
	h.m.Assigned(s.Claims()[h.topic])
	return nil
}

func (h handler) Cleanup(sarama.ConsumerGroupSession) error {
	h.m.Assigned(nil)
	return nil
}

func (h handler) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, more := <-claim.Messages():
			if !more {
				return nil
			}
			h.m.Took(message.Partition, message.Offset)
			s.MarkMessage(message, "")
			if len(claim.Messages()) == 0 {
				s.Commit()
				h.m.Committed(map[int32]int64{message.Partition: message.Offset + 1})
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func group(a contract.Args, m *contract.Member) error {
	members, err := sarama.NewConsumerGroup(a.Brokers(), a["group"], config())
	if err != nil {
		return err
	}
	go func() {
		for e := range members.Errors() {
			m.Failed(e)
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-m.Left
		cancel()
	}()
	for !m.Leaving() {
		err := members.Consume(ctx, []string{a["topic"]}, handler{a["topic"], m})
		if err != nil && !m.Leaving() {
			m.Failed(err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	return members.Close()
}

type topics struct {
	sarama.ClusterAdmin
	client sarama.Client
}

func admin(a contract.Args) (contract.Admin, error) {
	client, err := sarama.NewClient(a.Brokers(), config())
	if err != nil {
		return nil, err
	}
	cluster, err := sarama.NewClusterAdminFromClient(client)
	return topics{cluster, client}, err
}

// The code of an error that the broker answered, apart from other errors.
func coded(err error) (int, error) {
	var answered sarama.KError
	if errors.As(err, &answered) {
		return int(answered), nil
	}
	var topic *sarama.TopicError
	if errors.As(err, &topic) {
		return int(topic.Err), nil
	}
	var partition *sarama.TopicPartitionError
	if errors.As(err, &partition) {
		return int(partition.Err), nil
	}
	return 0, err
}

func (t topics) Create(topic string, partitions int32, configs map[string]string) (int, error) {
	given := map[string]*string{}
	for name, value := range configs {
		given[name] = &value
	}
	detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: given}
	return coded(t.CreateTopic(topic, detail, false))
}

func (t topics) Grow(topic string, partitions int32) (int, error) {
	return coded(t.CreatePartitions(topic, partitions, nil, false))
}

func (t topics) Delete(topic string) (int, error) {
	return coded(t.DeleteTopic(topic))
}

func (t topics) Topics() (map[string]int, error) {
	listed, err := t.ListTopics()
	found := map[string]int{}
	for name, detail := range listed {
		found[name] = int(detail.NumPartitions)
	}
	return found, err
}

func (t topics) Offsets(topic string, at int64) ([]int64, error) {
	if err := t.client.RefreshMetadata(topic); err != nil {
		return nil, err
	}
	partitions, err := t.client.Partitions(topic)
	offsets := make([]int64, len(partitions))
	for i, p := range partitions {
		if err == nil {
			offsets[i], err = t.client.GetOffset(topic, p, at)
		}
	}
	return offsets, err
}
