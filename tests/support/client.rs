//! One connection to a broker: requests in any version, one at a time, every byte of
//! the response accounted for.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes};

use super::newer;

const ANSWER_WITHIN: Duration = Duration::from_secs(60);

pub struct Client {
    port: u16,
    stream: TcpStream,
    correlation_id: i32,
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Client {
    pub fn connect(port: u16) -> Client {
        Client { port, stream: connect(port), correlation_id: 0 }
    }

    /// A new connection in place of this one.
    pub fn reconnect(&mut self) {
        self.stream = connect(self.port);
    }

    /// Sends `request` and gives its response.
    pub fn call<R: Request<Response: Message + 'static> + 'static>(
        &mut self,
        version: i16,
        request: &R,
    ) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version, version)
    }

    /// Sends without waiting for a response (there is none to Produce with acks=0).
    pub fn send<R: Request + 'static>(&mut self, version: i16, request: &R) {
        let body = match newer::encode(request, version) {
            Ok(body) => body,
            Err(problem) => panic!("{} v{version}: the test's request cannot be encoded: {problem}", name_of(R::KEY)),
        };
        self.send_body(R::KEY, version, R::header_version(version), &body);
    }

    pub fn send_body(&mut self, key: i16, version: i16, header_version: i16, body: &[u8]) {
        self.correlation_id += 1;
        let mut header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("every-version")));
        if header_version >= 2 {
            // A broker must not mind fields that it does not know.
            let unknown = BTreeMap::from([(9_999, Bytes::from_static(b"of another time"))]);
            header = header.with_unknown_tagged_fields(unknown);
        }
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, header_version).unwrap();
        frame.put_slice(body);
        let length = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).unwrap();
    }

    /// The response to the newest request, which was sent as `asked` and comes
    /// in the shape of `version`.
    pub fn receive<R: Request<Response: Message + 'static>>(&mut self, asked: i16, version: i16) -> R::Response {
        self.receive_of::<R>(self.correlation_id, asked, version)
    }

    /// The response to the request before the last `later` ones.
    pub fn receive_before<R: Request<Response: Message + 'static>>(
        &mut self,
        later: usize,
        version: i16,
    ) -> R::Response {
        self.receive_of::<R>(self.correlation_id - later as i32, version, version)
    }

    /// Whether nothing comes for so long.
    pub fn hears_nothing(&mut self, wait: Duration) -> bool {
        self.stream.set_read_timeout(Some(wait)).unwrap();
        let heard = self.stream.peek(&mut [0; 1]);
        self.stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        heard.is_err_and(|problem| matches!(problem.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn receive_of<R: Request<Response: Message + 'static>>(
        &mut self,
        correlation_id: i32,
        asked: i16,
        version: i16,
    ) -> R::Response {
        let what = format!("{} v{asked}", name_of(R::KEY));
        let mut length = [0; 4];
        if let Err(problem) = self.stream.read_exact(&mut length) {
            panic!("{what}: no response: {problem}");
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame).unwrap();
        let mut frame = Bytes::from(frame);
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
        assert_eq!(header.correlation_id, correlation_id, "{what}: the correlation id");
        match newer::decode::<R::Response>(&mut frame, version) {
            Ok(response) => {
                assert!(frame.is_empty(), "{what}: {} byte(s) are left over after the response", frame.len());
                response
            }
            Err(problem) => panic!("{what}: the response cannot be decoded: {problem}"),
        }
    }

    /// Whether the broker ends the connection instead of answering.
    pub fn is_closed_by_peer(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(problem) => problem.kind() == ErrorKind::ConnectionReset,
        }
    }
}

pub fn name_of(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("API {key}"), |key| format!("{key:?}"))
}
