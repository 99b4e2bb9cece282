//! The names of all keys and channels.

use crate::export::ExportId;

#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(queue: &str) -> Self {
        Self {
            prefix: format!("rowgate:{{{queue}}}:"),
        }
    }

    pub fn lease(&self, id: ExportId) -> String {
        self.key("lease", &id.to_string())
    }

    pub fn progress(&self, id: ExportId) -> String {
        self.key("progress", &id.to_string())
    }

    pub fn epoch(&self) -> String {
        format!("{}epoch", self.prefix)
    }

    pub fn lock(&self, name: &str) -> String {
        self.key("lock", name)
    }

    /// Of [`Keys::lock`].
    pub fn name_of_lock<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)?.strip_prefix("lock:")
    }

    pub fn line(&self, name: &str) -> String {
        self.key("line", name)
    }

    pub fn members(&self) -> String {
        format!("{}members", self.prefix)
    }

    pub fn rate(&self, source: &str) -> String {
        self.key("rate", source)
    }

    /// A channel.
    pub fn signals(&self) -> String {
        format!("{}signals", self.prefix)
    }

    /// Channels; a boot follows.
    pub fn wakes(&self) -> String {
        format!("{}wakes:", self.prefix)
    }

    fn key(&self, kind: &str, name: &str) -> String {
        format!("{}{kind}:{name}", self.prefix)
    }
}
