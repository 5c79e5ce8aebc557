//! The wire protocol: frames, which APIs and versions exist, and the two requests whose codecs are our own (Produce, Fetch).
//! No I/O.
