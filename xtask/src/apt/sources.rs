//! Which archives the machine's own apt uses, read from its one-line (`.list`) and deb822 (`.sources`) files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Result};

/// The environment variable that names a Debian archive, for machines whose apt uses none.
pub(crate) const MIRROR: &str = "IBVERBS_VM_MIRROR";

/// One source of packages: an address and the components taken from it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) uri: String,
    pub(crate) components: Vec<String>,
}

/// The two archives of Debian that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Archive {
    /// Releases, backports and unstable.
    Main,
    /// Security updates of the releases.
    Security,
}

/// Addresses of Debian's archives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Debian {
    main: String,
    security: Option<String>,
}

impl Debian {
    /// An archive without security updates.
    #[cfg(test)]
    pub(crate) fn with_main(uri: &str) -> Self {
        Self { main: uri.into(), security: None }
    }

    /// The address of one of the archives, if it is known.
    pub(crate) fn uri(&self, archive: Archive) -> Option<&str> {
        match archive {
            Archive::Main => Some(&self.main),
            Archive::Security => self.security.as_deref(),
        }
    }

    /// The archives that the environment or the machine's own apt configuration names.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let entries = machine_entries(Path::new("/etc/apt"));
        let mirror = std::env::var(MIRROR).ok().filter(|uri| !uri.is_empty());
        match Self::choose(&entries, mirror.as_deref()) {
            Some(debian) => Ok(debian),
            None => bail!(
                "no Debian archive in this machine's apt sources (/etc/apt): set {MIRROR} to the address of one"
            ),
        }
    }

    fn choose(entries: &[Entry], mirror: Option<&str>) -> Option<Self> {
        let find = |archive| {
            let mut of_it = entries.iter().filter(|entry| classify(entry) == Some(archive));
            of_it.next().map(|entry| entry.uri.clone())
        };
        let main = mirror
            .map(|uri| uri.trim_end_matches('/').to_owned())
            .or_else(|| find(Archive::Main))?;
        Some(Self { main, security: find(Archive::Security) })
    }
}

/// Which of Debian's archives an entry is, judged by how their addresses end everywhere.
fn classify(entry: &Entry) -> Option<Archive> {
    // Third parties publish below `.../debian` too, but not a component of this name.
    if !entry.components.iter().any(|component| component == "main") {
        return None;
    }
    let mut path = entry.uri.rsplit('/');
    let mut last = path.next()?;
    // A snapshot of the archive: .../debian/20250520T000000Z
    if last.len() == 16 && last.ends_with('Z') && last.starts_with("20") {
        last = path.next()?;
    }
    // Cloud images read the address from a file: mirror+file:///etc/apt/mirrors/debian.list
    match last.trim_end_matches(".list") {
        "debian" => Some(Archive::Main),
        "debian-security" => Some(Archive::Security),
        _ => None,
    }
}

/// All package sources below an apt configuration folder; unreadable files count as empty.
fn machine_entries(folder: &Path) -> Vec<Entry> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join("sources.list.d"))
        .map(|list| list.flatten().map(|file| file.path()).collect())
        .unwrap_or_default();
    files.sort();
    files.insert(0, folder.join("sources.list"));
    files.iter().flat_map(|file| parse_file(file)).collect()
}

fn parse_file(file: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(file).unwrap_or_default();
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("list") => parse_one_line(&text),
        Some("sources") => parse_deb822(&text),
        _ => Vec::new(),
    }
}

/// Parses `deb [options] URI SUITE COMPONENT...` lines.
pub(crate) fn parse_one_line(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let (kind, mut rest) = line.split_once(char::is_whitespace)?;
    if kind != "deb" {
        return None;
    }
    rest = rest.trim_start();
    if let Some(options) = rest.strip_prefix('[') {
        rest = options.split_once(']')?.1;
    }
    let mut words = rest.split_whitespace();
    let (uri, _suite) = (words.next()?, words.next()?);
    let components = words.map(str::to_owned).collect();
    Some(Entry { uri: uri.trim_end_matches('/').to_owned(), components })
}

/// Parses stanzas of `Field: value` lines, where a value goes on in lines that start with a blank.
pub(crate) fn parse_deb822(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut stanza = Stanza::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            entries.extend(std::mem::take(&mut stanza).entries());
        } else {
            stanza.add(line);
        }
    }
    entries.extend(stanza.entries());
    entries
}

/// The fields of one deb822 stanza, names in lower case.
#[derive(Default)]
struct Stanza(Vec<(String, String)>);

impl Stanza {
    fn add(&mut self, line: &str) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = self.0.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            self.0.push((name.trim().to_lowercase(), value.trim().to_owned()));
        }
    }

    fn words(&self, name: &str) -> Vec<&str> {
        let field = self.0.iter().find(|(field, _)| field == name);
        field.map(|(_, value)| value.split_whitespace().collect()).unwrap_or_default()
    }

    fn entries(self) -> Vec<Entry> {
        let enabled = self.words("enabled").first() != Some(&"no");
        if !enabled || !self.words("types").contains(&"deb") {
            return Vec::new();
        }
        let components: Vec<String> =
            self.words("components").into_iter().map(str::to_owned).collect();
        let entry = |uri: &str| Entry {
            uri: uri.trim_end_matches('/').to_owned(),
            components: components.clone(),
        };
        self.words("uris").into_iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uri: &str, components: &[&str]) -> Entry {
        Entry { uri: uri.into(), components: components.iter().map(|&c| c.into()).collect() }
    }

    #[test]
    fn one_line_format() {
        let text = "# deb http://commented.example/debian sid main\n\
                    deb http://a.example/debian/ bookworm main contrib # trailing\n\
                    deb-src http://src.example/debian bookworm main\n\
                    \n\
                    deb [arch=amd64 signed-by=/k.gpg]   http://b.example/debian-security bookworm-security main\n\
                    deb broken\n";
        assert_eq!(
            parse_one_line(text),
            [
                entry("http://a.example/debian", &["main", "contrib"]),
                entry("http://b.example/debian-security", &["main"]),
            ]
        );
    }

    #[test]
    fn deb822_format() {
        let text = "Types: deb deb-src\n\
                    # a comment inside a stanza\n\
                    URIs: http://a.example/debian/\n  http://b.example/debian\n\
                    Suites: trixie trixie-updates\n\
                    Components: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n\
                    \n\
                    types: deb\nuris: http://off.example/debian\nsuites: sid\ncomponents: main\nenabled: no\n\
                    \n\
                    Types: deb-src\nURIs: http://src.example/debian\nSuites: sid\nComponents: main\n";
        assert_eq!(
            parse_deb822(text),
            [
                entry("http://a.example/debian", &["main"]),
                entry("http://b.example/debian", &["main"])
            ]
        );
    }

    #[test]
    fn archives_are_told_by_the_end_of_their_address() {
        let main = |uri| classify(&entry(uri, &["main"]));
        assert_eq!(main("http://a.example/pub/debian"), Some(Archive::Main));
        assert_eq!(main("http://a.example/debian-security"), Some(Archive::Security));
        assert_eq!(main("http://a.example/archive/debian/20250520T000000Z"), Some(Archive::Main));
        assert_eq!(main("mirror+file:///etc/apt/mirrors/debian.list"), Some(Archive::Main));
        assert_eq!(main("http://a.example/ubuntu"), None);
        assert_eq!(classify(&entry("https://third.example/linux/debian", &["stable"])), None);
    }

    #[test]
    fn the_environment_goes_before_the_machine() {
        let entries = [
            entry("http://s.example/debian-security", &["main"]),
            entry("http://a.example/debian", &["main"]),
        ];
        let own = Debian::choose(&entries, None).unwrap();
        assert_eq!(own.uri(Archive::Main), Some("http://a.example/debian"));
        assert_eq!(own.uri(Archive::Security), Some("http://s.example/debian-security"));
        let named = Debian::choose(&entries, Some("http://m.example/debian/")).unwrap();
        assert_eq!(named.uri(Archive::Main), Some("http://m.example/debian"));
        assert_eq!(Debian::choose(&[entry("http://a.example/ubuntu", &["main"])], None), None);
    }

    #[test]
    fn both_kinds_of_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let parts = folder.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(folder.path().join("sources.list"), "deb http://one.example/x s main\n").unwrap();
        fs::write(parts.join("b.sources"), "Types: deb\nURIs: http://two.example/x\nSuites: s\n")
            .unwrap();
        fs::write(parts.join("c.list.save"), "deb http://ignored.example/x s main\n").unwrap();
        let uris: Vec<_> =
            machine_entries(folder.path()).into_iter().map(|entry| entry.uri).collect();
        assert_eq!(uris, ["http://one.example/x", "http://two.example/x"]);
    }
}
