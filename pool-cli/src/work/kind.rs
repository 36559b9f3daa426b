/// Kind of work: the product that is taken of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WorkKind {
    /// Its HTML.
    Content,
    /// A picture.
    Screenshot,
    /// A PDF.
    Pdf,
    /// What stands in some of its elements.
    Scrape,
}

impl WorkKind {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Content, Self::Screenshot, Self::Pdf, Self::Scrape];

    /// Its word in routes, commands, metrics and logs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Screenshot => "screenshot",
            Self::Pdf => "pdf",
            Self::Scrape => "scrape",
        }
    }
}
