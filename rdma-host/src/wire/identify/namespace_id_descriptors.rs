//! Namespace Identification Descriptor list (Base 5.1.13.2.3, CNS 03h).

use uuid::Uuid;

use super::{Eui64, Identify, IdentifyError};

/// Identifiers of a namespace; each at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceIdDescriptors {
    /// EUI64.
    pub eui64: Option<Eui64>,
    /// NGUID.
    pub nguid: Option<Uuid>,
    /// UUID.
    pub uuid: Option<Uuid>,
    /// CSI: command set of the namespace; 0 is NVM.
    pub command_set: Option<u8>,
}

/// Size in bytes of the header of a descriptor: NIDT, NIDL and two reserved bytes.
const HEADER: usize = 4;

impl NamespaceIdDescriptors {
    /// Decodes the list, which ends at a length of 0 or with the data. The first descriptor of each
    /// type counts; unknown types and identifiers of zeros are ignored.
    ///
    /// # Errors
    ///
    /// When it is not 4,096 bytes long, or an identifier does not have the length of its type.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        if bytes.len() != Identify::SIZE {
            return Err(IdentifyError::Length(bytes.len()));
        }
        let (mut names, mut rest) = (Self::default(), bytes);
        while let Some((&[kind, length, _, _], after)) = rest.split_first_chunk::<HEADER>() {
            let Some((value, after)) = after.split_at_checked(usize::from(length)) else { break };
            if length == 0 {
                break;
            }
            names.take(kind, value)?;
            rest = after;
        }
        Ok(names)
    }

    fn take(&mut self, kind: u8, value: &[u8]) -> Result<(), IdentifyError> {
        match kind {
            1 => keep(&mut self.eui64, Some(Eui64(fixed("EUI64", value)?)), value),
            2 => keep(&mut self.nguid, Some(Uuid::from_bytes(fixed("NGUID", value)?)), value),
            3 => keep(&mut self.uuid, Some(Uuid::from_bytes(fixed("UUID", value)?)), value),
            4 => {
                let [number] = fixed("CSI", value)?;
                self.command_set = self.command_set.or(Some(number));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Stores an identifier unless it is zero or its type is already set.
fn keep<T: Copy>(place: &mut Option<T>, name: Option<T>, value: &[u8]) {
    if value.iter().any(|&byte| byte != 0) {
        *place = place.or(name);
    }
}

fn fixed<const N: usize>(name: &'static str, value: &[u8]) -> Result<[u8; N], IdentifyError> {
    let bytes = u8::try_from(value.len()).unwrap_or(u8::MAX);
    value.try_into().map_err(|_| IdentifyError::Name { name, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in entries {
            bytes.extend_from_slice(&[*kind, u8::try_from(value.len()).unwrap(), 0, 0]);
            bytes.extend_from_slice(value);
        }
        bytes.resize(Identify::SIZE, 0);
        bytes
    }

    #[test]
    fn every_kind_in_literal_bytes() {
        let bytes = list(&[
            (3, &[3; 16]),
            (9, &[1; 5]),
            (2, &[2; 16]),
            (1, &[1; 8]),
            (4, &[0]),
            (3, &[4; 16]),
        ]);
        assert_eq!(bytes[..5], [3, 16, 0, 0, 3]);
        let names = NamespaceIdDescriptors::parse(&bytes).unwrap();
        let expected = NamespaceIdDescriptors {
            eui64: Some(Eui64([1; 8])),
            nguid: Some(Uuid::from_bytes([2; 16])),
            uuid: Some(Uuid::from_bytes([3; 16])),
            command_set: Some(0),
        };
        assert_eq!(names, expected);
    }

    #[test]
    fn a_list_may_be_empty_or_hold_zeros() {
        assert_eq!(
            NamespaceIdDescriptors::parse(&[0; 4096]),
            Ok(NamespaceIdDescriptors::default())
        );
        let zeros = list(&[(1, &[0; 8]), (2, &[0; 16]), (3, &[0; 16])]);
        assert_eq!(NamespaceIdDescriptors::parse(&zeros), Ok(NamespaceIdDescriptors::default()));
    }

    #[test]
    fn names_of_another_length_are_refused() {
        for (kind, name) in [(1, "EUI64"), (2, "NGUID"), (3, "UUID"), (4, "CSI")] {
            let error = NamespaceIdDescriptors::parse(&list(&[(kind, &[1; 7])])).unwrap_err();
            assert_eq!(error, IdentifyError::Name { name, bytes: 7 });
        }
        assert_eq!(NamespaceIdDescriptors::parse(&[0; 4095]), Err(IdentifyError::Length(4095)));
    }

    #[test]
    fn a_name_that_is_cut_off_ends_the_list() {
        let mut bytes = vec![0; Identify::SIZE];
        for entry in bytes.chunks_mut(255 + HEADER) {
            (entry[0], entry[1]) = (9, 255);
        }
        assert_eq!(NamespaceIdDescriptors::parse(&bytes), Ok(NamespaceIdDescriptors::default()));
    }
}
