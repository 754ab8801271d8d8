//! The moduli against their formula, and what must be refused.

use super::*;

/// Groups with the constant X of their formula, RFC 7919, appendix A.
const GROUPS: [(GroupId, &str, u64); 5] = [
    (GroupId::FFDHE_2048, primes::FFDHE_2048, 560_316),
    (GroupId::FFDHE_3072, primes::FFDHE_3072, 2_625_351),
    (GroupId::FFDHE_4096, primes::FFDHE_4096, 5_736_041),
    (GroupId::FFDHE_6144, primes::FFDHE_6144, 15_705_020),
    (GroupId::FFDHE_8192, primes::FFDHE_8192, 10_965_728),
];

fn key(group: GroupId, random: u8) -> PrivateKey {
    PrivateKey::from_random(group, &[random; EXPONENT_LENGTH_MAX]).unwrap()
}

/// The integer part of 2^`shift` · e, from the series of 1/k!.
fn e_shifted(shift: u32, precision: u32) -> BoxedUint {
    let mut term = BoxedUint::one_with_precision(precision).shl(shift + GUARD);
    let mut sum = BoxedUint::zero_with_precision(precision);
    let mut k = 1_u64;
    while !bool::from(term.is_zero()) {
        sum = sum.wrapping_add(&term);
        let divisor = crypto_bigint::Limb::from(k);
        term = term.div_rem_limb(divisor.to_nz().unwrap()).0;
        k += 1;
    }
    sum.shr(GUARD)
}

/// Bits that keep the rounding of the series away from its integer part.
const GUARD: u32 = 128;

#[test]
fn moduli_follow_their_formula() {
    for (group, hexadecimal, x) in GROUPS {
        let bits = bits(group.value_length().unwrap());
        let wide = bits + 2 * GUARD;
        let one = BoxedUint::one_with_precision(wide);
        let middle = e_shifted(bits - 130, wide).wrapping_add(BoxedUint::from(x).resize(wide));
        let formula = one
            .shl(bits)
            .wrapping_sub(one.shl(bits - 64))
            .wrapping_add(middle.shl(64))
            .wrapping_sub(&one);
        let modulus = BoxedUint::from_be_hex(hexadecimal, bits).into_option().unwrap();
        assert_eq!(modulus.resize(wide), formula, "{group}");
    }
}

/// Fermat's test to base 3 of p and of (p−1)/2, and 2 generating the subgroup of that order.
#[test]
fn moduli_are_safe_primes() {
    for (group, hexadecimal, _) in GROUPS {
        let params = montgomery(hexadecimal);
        let bits = params.bits_precision();
        let one = BoxedUint::one_with_precision(bits);
        let minus_one = params.modulus().as_ref().wrapping_sub(&one);
        let half = minus_one.shr(1);
        let power = |params: &BoxedMontyParams, base: u64, exponent: &BoxedUint| {
            let base = BoxedUint::from(base).resize(bits);
            BoxedMontyForm::new(base, params).pow(exponent).retrieve()
        };
        assert_eq!(power(&params, 3, &minus_one), one, "{group}: p");
        assert_eq!(power(&params, 2, &half), one, "{group}: generator");
        let order = BoxedMontyParams::new_vartime(Odd::new(half.clone()).into_option().unwrap());
        assert_eq!(power(&order, 3, &half.wrapping_sub(&one)), one, "{group}: (p-1)/2");
    }
}

#[test]
fn both_sides_agree() {
    for (group, ..) in GROUPS {
        let (ours, theirs) = (key(group, 0x11), key(group, 0x22));
        let (our_value, their_value) = (ours.public_value(), theirs.public_value());
        assert_ne!(our_value, their_value);
        assert_eq!(Some(our_value.len()), group.value_length());
        let shared = ours.shared_secret(&their_value).ok().unwrap();
        assert_eq!(shared.as_bytes(), theirs.shared_secret(&our_value).ok().unwrap().as_bytes());
        assert_eq!(Some(shared.as_bytes().len()), group.value_length());
    }
}

#[test]
fn exponents_have_the_length_rfc_7919_asks_for() {
    for ((group, ..), bits) in GROUPS.into_iter().zip([225, 275, 325, 375, 400]) {
        let (_, length) = parameters(group).unwrap();
        assert!((bits..bits + 32).contains(&(length * 8)), "{group}");
        assert_eq!(key(group, 0).exponent.bits() as usize, length * 8, "{group}");
    }
}

#[test]
fn random_bytes_after_the_exponent_are_ignored() {
    let mut random = [7; EXPONENT_LENGTH_MAX];
    let value = |random: &[u8; EXPONENT_LENGTH_MAX]| {
        PrivateKey::from_random(GroupId::FFDHE_2048, random).unwrap().public_value()
    };
    let before = value(&random);
    random[32] = 0;
    assert_eq!(value(&random), before);
    random[31] = 0;
    assert_ne!(value(&random), before);
}

#[test]
fn groups_without_exponentiation_give_no_key() {
    for group in [GroupId::NULL, GroupId(6), GroupId::SECP256R1, GroupId::ML_KEM_768] {
        assert!(PrivateKey::from_random(group, &[1; EXPONENT_LENGTH_MAX]).is_none());
    }
}

#[test]
fn values_outside_two_to_p_minus_two_are_refused() {
    for (group, hexadecimal, _) in GROUPS {
        let bits = bits(hexadecimal.len() / 2);
        let modulus = BoxedUint::from_be_hex(hexadecimal, bits).into_option().unwrap();
        let number = |value: u64| BoxedUint::from(value).resize(bits);
        let key = key(group, 5);
        let error = |value: &BoxedUint| key.shared_secret(&value.to_be_bytes()).err();
        let range = Some(PublicValueError::Range);
        assert_eq!(error(&number(0)), range);
        assert_eq!(error(&number(1)), range);
        assert_eq!(error(&number(2)), None);
        assert_eq!(error(&modulus.wrapping_sub(number(2))), None);
        assert_eq!(error(&modulus.wrapping_sub(number(1))), range);
        assert_eq!(error(&modulus), range);
        assert_eq!(error(&modulus.wrapping_add(number(1))), range);
        assert_eq!(error(&BoxedUint::max(bits)), range);
    }
}

#[test]
fn values_of_other_lengths_are_refused() {
    let key = key(GroupId::FFDHE_3072, 5);
    for actual in [0, 1, 256, 383, 385, 1024] {
        let refused = key.shared_secret(&vec![9; actual]).err();
        assert_eq!(refused, Some(PublicValueError::Length { expected: 384, actual }));
    }
}

#[test]
fn exponents_and_shared_secrets_are_wiped_on_drop() {
    fn wiped<T: ZeroizeOnDrop>(_: &T) {}
    let key = key(GroupId::FFDHE_2048, 5);
    wiped(&key);
    wiped(&key.exponent);
    let shared = key.shared_secret(&key.public_value()).ok().unwrap();
    wiped(&shared);
    wiped(&shared.bytes);
}
