//! Secrets, and texts with secrets, damaged at random with a fixed seed.

use auth::{HashId, Secret};

/// Number of kinds of damage.
pub(crate) const KINDS: usize = 40;

/// Length of a piece of a secret that must not be shown, in characters.
const PIECE: usize = 16;

/// Pseudorandom numbers (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).expect("less than the limit")
    }

    pub(crate) fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Text of a valid secret.
    pub(crate) fn secret(&mut self) -> String {
        let length = *self.choose(&[32, 48, 64]);
        let bytes: Vec<u8> = (0..length).map(|_| self.next().to_le_bytes()[0]).collect();
        let hash = HashId(self.next().to_le_bytes()[0] % 4);
        let secret = Secret::from_bytes(hash, &bytes).expect("a valid length and hash");
        secret.encode().as_str().to_owned()
    }

    /// Secret with damage of one kind, in a place of chance.
    pub(crate) fn damage(&mut self, secret: &str, kind: usize) -> String {
        let at = 1 + self.below(secret.len() - 2);
        let (start, end) = secret.split_at(at);
        let payload = &secret[10..];
        let inserted = |text: &str| format!("{start}{text}{end}");
        match kind {
            0 => secret.to_owned(),
            1 => secret.trim_end_matches(':').to_owned(),
            2 => secret[1..].to_owned(),
            3 => secret[7..].to_owned(),
            4 => payload.to_owned(),
            5 => payload.trim_end_matches([':', '=']).to_owned(),
            6 => secret.to_lowercase(),
            7 => secret.to_uppercase(),
            8 => start.to_owned(),
            9 => end.to_owned(),
            10 => secret[..10 + payload.len() / 2].to_owned(),
            11 => inserted(" "),
            12 => inserted("="),
            13 => inserted(" = "),
            14 => inserted(":"),
            15 => inserted(";"),
            16 => inserted(" #"),
            17 => inserted("\""),
            18 => inserted("'"),
            19 => inserted("\n"),
            20 => inserted("\r\n"),
            21 => inserted("\t"),
            22 => inserted("\u{1b}[2J"),
            23 => inserted("\u{202e}"),
            24 => inserted("\u{200b}"),
            25 => inserted("\\"),
            26 => inserted("]"),
            27 => inserted("}"),
            28 => inserted(","),
            29 => format!("{secret}{secret}"),
            30 => payload.chars().rev().collect(),
            31 => secret.replace(['+', '/'], "-"),
            32 => secret.replace('=', "%3D"),
            33 => format!("\"{secret}\""),
            34 => format!("[{secret}]"),
            35 => format!("{{{secret}}}"),
            36 => format!("--dhchap-secret={secret}"),
            37 => secret.replace("DHHC-1", "DHHC-2"),
            38 => format!("{end}{start}"),
            _ => self.mutate(secret, 3),
        }
    }

    /// Text with a number of small changes.
    pub(crate) fn mutate(&mut self, text: &str, changes: usize) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..changes {
            let at = self.below(characters.len());
            let new = *self.choose(&[
                '=', ':', ';', '#', '"', '[', ']', '{', '}', ',', ' ', '\n', '-', 'x', '7', '\\',
                '\0', '\u{1b}', '\u{202e}', 'ü', '/', '.',
            ]);
            match self.below(5) {
                0 if !characters.is_empty() => characters[at] = new,
                1 if !characters.is_empty() => drop(characters.remove(at)),
                2 => characters.insert(at, new),
                3 => characters.truncate(characters.len().max(64) - self.below(8)),
                _ => {
                    let end = (at + self.below(PIECE - 4)).min(characters.len());
                    let copy = characters[at..end].to_vec();
                    let place = self.below(characters.len());
                    characters.splice(place..place, copy);
                }
            }
        }
        characters.into_iter().collect()
    }
}

/// Places of a text in which a secret can stand: its words.
pub(crate) fn places(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut places = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let inside = c.is_alphanumeric() || "-_.:/+".contains(c);
        match start {
            None if inside => start = Some(at),
            Some(first) if !inside => {
                places.extend(Some(first..at).filter(|word| word.len() > 1));
                start = None;
            }
            _ => {}
        }
    }
    places
}

/// Places between the characters of a text, which hold nothing.
pub(crate) fn positions(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..=text.len()).filter(|&at| text.is_char_boundary(at)).map(|at| at..at)
}

/// Repetitions of what a test does at random; more of them by `tests/longer`, which sets
/// `NVMF_DAMAGE_FACTOR`.
pub(crate) fn repetitions(ordinary: usize) -> usize {
    let factor = std::env::var("NVMF_DAMAGE_FACTOR").ok();
    ordinary * factor.map_or(1, |text| text.parse::<usize>().expect("a number"))
}

/// Piece of a damaged secret that is in what was printed.
pub(crate) fn shown_piece<'a>(secret: &'a str, printed: &str) -> Option<&'a str> {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let runs = secret.split(|c| !is_base64(c)).filter(|run| run.len() >= PIECE);
    let mut pieces = runs.flat_map(|run| (0..=run.len() - PIECE).map(|at| &run[at..at + PIECE]));
    pieces.find(|piece| printed.contains(piece))
}
