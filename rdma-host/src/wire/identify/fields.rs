//! Fields of Identify data structures by name, for programs that show all of them.
//!
//! Names are those of the specification in lower case (Base figures 312 and 316, NVM figure 114),
//! which are the keys of nvme-cli's JSON.

use std::fmt;

use super::{Identify, IdentifyError, printable};

/// Field of a data structure: its name and its value.
pub type IdentifyField = (&'static str, IdentifyValue);

/// Value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentifyValue {
    /// Number of at most 64 bits.
    Number(u64),
    /// ASCII text, or an identifier as hexadecimal text.
    Text(String),
    /// Number of 128 bits.
    Wide(u128),
}

impl fmt::Display for IdentifyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Wide(number) => number.fmt(f),
        }
    }
}

/// Representation of a field's bytes.
#[derive(Clone, Copy)]
enum Form {
    Ascii,
    Hex,
    Number,
    Uuid,
}

/// Place of a field.
struct Place {
    name: &'static str,
    offset: usize,
    bytes: usize,
    form: Form,
}

const fn number(name: &'static str, offset: usize, bytes: usize) -> Place {
    Place { name, offset, bytes, form: Form::Number }
}

const fn text(name: &'static str, offset: usize, bytes: usize, form: Form) -> Place {
    Place { name, offset, bytes, form }
}

/// Identify Controller, without the power state descriptors.
const CONTROLLER: &[Place] = &[
    number("vid", 0, 2),
    number("ssvid", 2, 2),
    text("sn", 4, 20, Form::Ascii),
    text("mn", 24, 40, Form::Ascii),
    text("fr", 64, 8, Form::Ascii),
    number("rab", 72, 1),
    number("ieee", 73, 3),
    number("cmic", 76, 1),
    number("mdts", 77, 1),
    number("cntlid", 78, 2),
    number("ver", 80, 4),
    number("rtd3r", 84, 4),
    number("rtd3e", 88, 4),
    number("oaes", 92, 4),
    number("ctratt", 96, 4),
    number("rrls", 100, 2),
    number("cntrltype", 111, 1),
    text("fguid", 112, 16, Form::Uuid),
    number("crdt1", 128, 2),
    number("crdt2", 130, 2),
    number("crdt3", 132, 2),
    number("nvmsr", 253, 1),
    number("vwci", 254, 1),
    number("mec", 255, 1),
    number("oacs", 256, 2),
    number("acl", 258, 1),
    number("aerl", 259, 1),
    number("frmw", 260, 1),
    number("lpa", 261, 1),
    number("elpe", 262, 1),
    number("npss", 263, 1),
    number("avscc", 264, 1),
    number("apsta", 265, 1),
    number("wctemp", 266, 2),
    number("cctemp", 268, 2),
    number("mtfa", 270, 2),
    number("hmpre", 272, 4),
    number("hmmin", 276, 4),
    number("tnvmcap", 280, 16),
    number("unvmcap", 296, 16),
    number("rpmbs", 312, 4),
    number("edstt", 316, 2),
    number("dsto", 318, 1),
    number("fwug", 319, 1),
    number("kas", 320, 2),
    number("hctma", 322, 2),
    number("mntmt", 324, 2),
    number("mxtmt", 326, 2),
    number("sanicap", 328, 4),
    number("hmminds", 332, 4),
    number("hmmaxd", 336, 2),
    number("nsetidmax", 338, 2),
    number("endgidmax", 340, 2),
    number("anatt", 342, 1),
    number("anacap", 343, 1),
    number("anagrpmax", 344, 4),
    number("nanagrpid", 348, 4),
    number("pels", 352, 4),
    number("domainid", 356, 2),
    number("megcap", 368, 16),
    number("sqes", 512, 1),
    number("cqes", 513, 1),
    number("maxcmd", 514, 2),
    number("nn", 516, 4),
    number("oncs", 520, 2),
    number("fuses", 522, 2),
    number("fna", 524, 1),
    number("vwc", 525, 1),
    number("awun", 526, 2),
    number("awupf", 528, 2),
    number("icsvscc", 530, 1),
    number("nwpc", 531, 1),
    number("acwu", 532, 2),
    number("ocfs", 534, 2),
    number("sgls", 536, 4),
    number("mnan", 540, 4),
    number("maxdna", 544, 16),
    number("maxcna", 560, 4),
    text("subnqn", 768, 256, Form::Ascii),
    number("ioccsz", 1792, 4),
    number("iorcsz", 1796, 4),
    number("icdoff", 1800, 2),
    number("fcatt", 1802, 1),
    number("msdbd", 1803, 1),
    number("ofcs", 1804, 2),
];

/// Power state descriptor (Base figure 313), without the fields that are parts of a byte.
const POWER_STATE: &[Place] = &[
    number("max_power", 0, 2),
    number("flags", 3, 1),
    number("entry_lat", 4, 4),
    number("exit_lat", 8, 4),
    number("read_tput", 12, 1),
    number("read_lat", 13, 1),
    number("write_tput", 14, 1),
    number("write_lat", 15, 1),
    number("idle_power", 16, 2),
    number("active_power", 20, 2),
];

const POWER_STATES_OFFSET: usize = 2048;
const POWER_STATE_BYTES: usize = 32;

/// Identify Namespace, without the LBA formats and [`PREFERRED`].
const NAMESPACE: &[Place] = &[
    number("nsze", 0, 8),
    number("ncap", 8, 8),
    number("nuse", 16, 8),
    number("nsfeat", 24, 1),
    number("nlbaf", 25, 1),
    number("flbas", 26, 1),
    number("mc", 27, 1),
    number("dpc", 28, 1),
    number("dps", 29, 1),
    number("nmic", 30, 1),
    number("rescap", 31, 1),
    number("fpi", 32, 1),
    number("dlfeat", 33, 1),
    number("nawun", 34, 2),
    number("nawupf", 36, 2),
    number("nacwu", 38, 2),
    number("nabsn", 40, 2),
    number("nabo", 42, 2),
    number("nabspf", 44, 2),
    number("noiob", 46, 2),
    number("nvmcap", 48, 16),
    number("mssrl", 74, 2),
    number("mcl", 76, 4),
    number("msrc", 80, 1),
    number("nulbaf", 82, 1),
    number("anagrpid", 92, 4),
    number("nsattr", 99, 1),
    number("nvmsetid", 100, 2),
    number("endgid", 102, 2),
    text("nguid", 104, 16, Form::Hex),
    text("eui64", 120, 8, Form::Hex),
];

/// Preferred sizes and alignments, which are defined where bit 4 of NSFEAT (OPTPERF) is set.
const PREFERRED: &[Place] = &[
    number("npwg", 64, 2),
    number("npwa", 66, 2),
    number("npdg", 68, 2),
    number("npda", 70, 2),
    number("nows", 72, 2),
];

/// LBA format (NVM figure 116), without its relative performance, which is part of a byte.
const LBA_FORMAT: &[Place] = &[number("ms", 0, 2), number("ds", 2, 1)];

const LBA_FORMATS_OFFSET: usize = 128;
const LBA_FORMAT_BYTES: usize = 4;

/// Identify Namespace of the Zoned Namespace command set (ZNS figure 48), without the formats.
const ZONED_NAMESPACE: &[Place] = &[
    number("zoc", 0, 2),
    number("ozcs", 2, 2),
    number("mar", 4, 4),
    number("mor", 8, 4),
    number("rrl", 12, 4),
    number("frl", 16, 4),
    number("rrl1", 20, 4),
    number("rrl2", 24, 4),
    number("rrl3", 28, 4),
    number("frl1", 32, 4),
    number("frl2", 36, 4),
    number("frl3", 40, 4),
    number("numzrwa", 44, 4),
    number("zrwafg", 48, 2),
    number("zrwasz", 50, 2),
    number("zrwacap", 52, 1),
];

/// LBA format extension (ZNS figure 49).
const ZONED_FORMAT: &[Place] = &[number("zsze", 0, 8), number("zdes", 8, 1)];

const ZONED_FORMATS_OFFSET: usize = 2816;
const ZONED_FORMAT_BYTES: usize = 16;

/// Identify Controller of the Zoned Namespace command set (ZNS figure 50).
const ZONED_CONTROLLER: &[Place] = &[number("zasl", 0, 1)];

impl Place {
    fn field(&self, structure: &[u8]) -> IdentifyField {
        let bytes = &structure[self.offset..self.offset + self.bytes];
        let value = match self.form {
            Form::Ascii => IdentifyValue::Text(printable(bytes)),
            Form::Hex => {
                IdentifyValue::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
            }
            Form::Number if bytes.len() > 8 => IdentifyValue::Wide(unsigned(bytes)),
            Form::Number => {
                IdentifyValue::Number(u64::try_from(unsigned(bytes)).expect("at most eight bytes"))
            }
            Form::Uuid => {
                let bytes = bytes.try_into().expect("the place of a UUID has 16 bytes");
                IdentifyValue::Text(uuid::Uuid::from_bytes(bytes).to_string())
            }
        };
        (self.name, value)
    }
}

/// Number in little-endian bytes, at most 16.
fn unsigned(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

fn fields(places: &[Place], structure: &[u8]) -> Vec<IdentifyField> {
    places.iter().map(|place| place.field(structure)).collect()
}

fn check_length(data: &[u8]) -> Result<(), IdentifyError> {
    if data.len() == Identify::SIZE { Ok(()) } else { Err(IdentifyError::Length(data.len())) }
}

/// Fields of Identify Controller.
///
/// # Errors
///
/// When the data structure is not 4,096 bytes long.
pub fn controller_fields(data: &[u8]) -> Result<Vec<IdentifyField>, IdentifyError> {
    check_length(data)?;
    Ok(fields(CONTROLLER, data))
}

/// Fields of each power state that Identify Controller describes.
///
/// # Errors
///
/// As [`controller_fields`].
pub fn power_state_fields(data: &[u8]) -> Result<Vec<Vec<IdentifyField>>, IdentifyError> {
    check_length(data)?;
    let states = data[POWER_STATES_OFFSET..][..32 * POWER_STATE_BYTES].chunks(POWER_STATE_BYTES);
    let count = usize::from(data[263]) + 1;
    let one = |state: &[u8]| {
        let mut all = fields(POWER_STATE, state);
        let part =
            |byte: u8, shift: u8, mask: u8| IdentifyValue::Number(u64::from(byte >> shift & mask));
        all.push(("idle_scale", part(state[18], 6, 3)));
        all.push(("active_power_work", part(state[22], 0, 7)));
        all.push(("active_scale", part(state[22], 6, 3)));
        all
    };
    Ok(states.take(count).map(one).collect())
}

/// Fields of Identify Namespace.
///
/// # Errors
///
/// As [`controller_fields`].
pub fn namespace_fields(data: &[u8]) -> Result<Vec<IdentifyField>, IdentifyError> {
    /// OPTPERF: the fields of preferred sizes are defined.
    const OPTPERF: u8 = 0x10;
    check_length(data)?;
    let mut all = fields(NAMESPACE, data);
    if data[24] & OPTPERF != 0 {
        all.extend(fields(PREFERRED, data));
    }
    Ok(all)
}

/// Fields of each LBA format that Identify Namespace describes.
///
/// # Errors
///
/// As [`controller_fields`].
pub fn lba_format_fields(data: &[u8]) -> Result<Vec<Vec<IdentifyField>>, IdentifyError> {
    check_length(data)?;
    let formats = data[LBA_FORMATS_OFFSET..][..64 * LBA_FORMAT_BYTES].chunks(LBA_FORMAT_BYTES);
    let one = |format: &[u8]| {
        let mut all = fields(LBA_FORMAT, format);
        all.push(("rp", IdentifyValue::Number(u64::from(format[3] & 3))));
        all
    };
    Ok(formats.take(usize::from(data[25]) + 1).map(one).collect())
}

/// Fields of Identify Namespace of the Zoned Namespace command set.
///
/// # Errors
///
/// As [`controller_fields`].
pub fn zoned_namespace_fields(data: &[u8]) -> Result<Vec<IdentifyField>, IdentifyError> {
    check_length(data)?;
    Ok(fields(ZONED_NAMESPACE, data))
}

/// Fields of the extension of each LBA format that Identify Namespace describes; `namespace` is
/// that data structure.
///
/// # Errors
///
/// As [`controller_fields`].
pub fn zoned_format_fields(
    data: &[u8],
    namespace: &[u8],
) -> Result<Vec<Vec<IdentifyField>>, IdentifyError> {
    check_length(data)?;
    check_length(namespace)?;
    let formats = &data[ZONED_FORMATS_OFFSET..][..64 * ZONED_FORMAT_BYTES];
    let formats = formats.chunks(ZONED_FORMAT_BYTES).take(usize::from(namespace[25]) + 1);
    Ok(formats.map(|format| fields(ZONED_FORMAT, format)).collect())
}

/// Fields of Identify Controller of the Zoned Namespace command set.
///
/// # Errors
///
/// As [`controller_fields`].
pub fn zoned_controller_fields(data: &[u8]) -> Result<Vec<IdentifyField>, IdentifyError> {
    check_length(data)?;
    Ok(fields(ZONED_CONTROLLER, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(fields: &[IdentifyField], name: &str) -> IdentifyValue {
        fields.iter().find(|field| field.0 == name).expect(name).1.clone()
    }

    #[test]
    fn places_lie_in_the_structures_one_after_another() {
        for (places, end) in [
            (CONTROLLER, POWER_STATES_OFFSET),
            (POWER_STATE, POWER_STATE_BYTES),
            (NAMESPACE, LBA_FORMATS_OFFSET),
            (PREFERRED, 74),
            (LBA_FORMAT, LBA_FORMAT_BYTES),
            (ZONED_NAMESPACE, ZONED_FORMATS_OFFSET),
            (ZONED_FORMAT, ZONED_FORMAT_BYTES),
            (ZONED_CONTROLLER, Identify::SIZE),
        ] {
            let mut last = 0;
            for place in places {
                assert!(place.offset >= last, "{}", place.name);
                last = place.offset + place.bytes;
            }
            assert!(last <= end);
        }
    }

    #[test]
    fn fields_of_a_controller_by_offset() {
        let mut data = [0; 4096];
        data[0..2].copy_from_slice(&[0x86, 0x80]);
        data[4..9].copy_from_slice(b"S1   ");
        data[73..76].copy_from_slice(&[1, 2, 3]);
        data[280] = 9;
        data[768..773].copy_from_slice(b"nqn.x");
        (data[263], data[2048 + 32], data[2048 + 32 + 22]) = (1, 7, 0b0100_0010);
        let all = controller_fields(&data).unwrap();
        assert_eq!(value(&all, "vid"), IdentifyValue::Number(0x8086));
        assert_eq!(value(&all, "sn"), IdentifyValue::Text("S1".into()));
        assert_eq!(value(&all, "ieee"), IdentifyValue::Number(0x03_0201));
        assert_eq!(value(&all, "tnvmcap"), IdentifyValue::Wide(9));
        assert_eq!(value(&all, "subnqn"), IdentifyValue::Text("nqn.x".into()));
        let nil = "00000000-0000-0000-0000-000000000000";
        assert_eq!(value(&all, "fguid"), IdentifyValue::Text(nil.into()));
        let states = power_state_fields(&data).unwrap();
        assert_eq!(states.len(), 2);
        assert_eq!(value(&states[1], "max_power"), IdentifyValue::Number(7));
        assert_eq!(value(&states[1], "active_power_work"), IdentifyValue::Number(2));
        assert_eq!(value(&states[1], "active_scale"), IdentifyValue::Number(1));
        data[263] = 255;
        assert_eq!(power_state_fields(&data).unwrap().len(), 32, "no more are there");
        assert_eq!(controller_fields(&data[1..]), Err(IdentifyError::Length(4095)));
    }

    #[test]
    fn fields_of_a_namespace_by_offset() {
        let mut data = [0; 4096];
        (data[1], data[25], data[120]) = (1, 1, 0xab);
        data[128 + 4..128 + 8].copy_from_slice(&[8, 0, 12, 0xfe]);
        let all = namespace_fields(&data).unwrap();
        assert_eq!(value(&all, "nsze"), IdentifyValue::Number(256));
        assert_eq!(value(&all, "eui64"), IdentifyValue::Text("ab00000000000000".into()));
        assert!(all.iter().all(|field| field.0 != "npwg"));
        data[24] = 0x10;
        assert!(namespace_fields(&data).unwrap().iter().any(|field| field.0 == "npwg"));
        let formats = lba_format_fields(&data).unwrap();
        let numbers = [("ms", 8), ("ds", 12), ("rp", 2)];
        assert_eq!(formats[1], numbers.map(|(name, value)| (name, IdentifyValue::Number(value))));
        data[25] = 255;
        assert_eq!(lba_format_fields(&data).unwrap().len(), 64);
    }

    #[test]
    fn fields_of_the_zoned_set_by_offset() {
        let (mut data, mut namespace) = ([0; 4096], [0; 4096]);
        (data[4], data[8], data[52], namespace[25]) = (2, 1, 3, 1);
        (data[2816 + 17], data[2816 + 24]) = (4, 7);
        let all = zoned_namespace_fields(&data).unwrap();
        for (name, expected) in [("mar", 2), ("mor", 1), ("zrwacap", 3), ("zoc", 0)] {
            assert_eq!(value(&all, name), IdentifyValue::Number(expected), "{name}");
        }
        let formats = zoned_format_fields(&data, &namespace).unwrap();
        assert_eq!(formats.len(), 2);
        assert_eq!(value(&formats[1], "zsze"), IdentifyValue::Number(1024));
        assert_eq!(value(&formats[1], "zdes"), IdentifyValue::Number(7));
        namespace[25] = 255;
        assert_eq!(zoned_format_fields(&data, &namespace).unwrap().len(), 64);
        data[0] = 4;
        let zasl = ("zasl", IdentifyValue::Number(4));
        assert_eq!(zoned_controller_fields(&data).unwrap(), [zasl]);
    }
}
