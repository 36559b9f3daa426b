use std::io::{BufRead, BufReader};

use ureq::BodyReader;

use crate::exit::Failure;

/// The states of a pool, one a second, as JSON; made by [`Client::stream`](super::Client::stream).
///
/// It ends when the pool does. Next waits for as long as the connection stands.
pub(crate) struct Stream<R = BufReader<BodyReader<'static>>> {
    lines: std::io::Lines<R>,
}

impl Stream {
    pub(super) fn new(body: ureq::Body) -> Self {
        Self { lines: BufReader::new(body.into_reader()).lines() }
    }
}

impl<R: BufRead> Iterator for Stream<R> {
    type Item = Result<String, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        // Of server-sent events the pool sends but one line of data each, and comments between.
        loop {
            match self.lines.next()? {
                Ok(line) => {
                    if let Some(data) = line.strip_prefix("data:") {
                        return Some(Ok(data.trim_start().to_owned()));
                    }
                }
                Err(error) => {
                    return Some(Err(Failure::new(format!("the pool is gone: {error}"))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_states() {
        let text = ": keep alive\n\ndata: {\"a\":1}\n\ndata:{\"a\":2}\n\n";
        let stream = Stream { lines: text.as_bytes().lines() };
        let states: Vec<String> = stream.map(|state| state.expect("it is whole")).collect();
        assert_eq!(states, ["{\"a\":1}", "{\"a\":2}"]);
    }
}
