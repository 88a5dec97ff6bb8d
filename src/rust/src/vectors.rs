//! R vectors over Rust's memory (ALTREP), to R code like any other.
//!
//! Numbers are handed over without a copy. Strings are made only when they are looked at: a million barcodes take R longer to
//! make, and its garbage collector longer to walk, than all other work together. Whoever asks for all strings at once,
//! saves or changes them gets plain ones, after which Rust's are let go.
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

use extendr_api::prelude::*;
use extendr_ffi::{
    cetype_t, DllInfo, R_BlankString, R_ClearExternalPtr, R_ExternalPtrAddr, R_ExternalPtrProtected, R_MakeExternalPtr,
    R_NaString, R_NilValue, R_RegisterCFinalizerEx, R_altrep_class_t, R_altrep_data1, R_altrep_data2,
    R_make_altinteger_class, R_make_altreal_class, R_make_altstring_class, R_new_altrep, R_set_altinteger_Elt_method,
    R_set_altreal_Elt_method, R_set_altrep_Duplicate_method, R_set_altrep_Length_method, R_set_altrep_data1,
    R_set_altrep_data2, R_set_altstring_Elt_method, R_set_altstring_No_NA_method, R_set_altstring_Set_elt_method,
    R_set_altvec_Dataptr_method, R_set_altvec_Dataptr_or_null_method, R_xlen_t, Rboolean, Rf_allocVector,
    Rf_mkCharLenCE, Rf_protect, Rf_unprotect, Rf_xlength, SET_STRING_ELT, SEXP, SEXPTYPE, STRING_ELT, STRING_PTR_RO,
};

/// What a vector stands on. data1 is a pointer to this. Of strings, data1 is NULL once all are made, and data2 a plain
/// vector: the names made so far (empty where not yet made, as no name is empty), or all strings.
enum Source {
    Integers(Vec<i32>),
    Reals(Vec<f64>),
    Names(Vec<String>),
    /// 1-based places in the vector that the pointer protects; 0 is NA.
    Chosen(Vec<i32>),
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Source::Integers(values) | Source::Chosen(values) => values.len(),
            Source::Reals(values) => values.len(),
            Source::Names(names) => names.len(),
        }
    }

    /// Of memory, about.
    fn bytes(&self) -> usize {
        let each = match self {
            Source::Integers(_) | Source::Chosen(_) => 4,
            Source::Reals(_) => 8,
            Source::Names(_) => 48,
        };
        self.len() * each
    }
}

struct Classes {
    integers: R_altrep_class_t,
    reals: R_altrep_class_t,
    strings: R_altrep_class_t,
}
// SAFETY: the handles are written once, when R loads the package, and only R's thread uses them.
unsafe impl Send for Classes {}
unsafe impl Sync for Classes {}

static CLASSES: OnceLock<Classes> = OnceLock::new();

/// Registers the classes with R, which resets their methods when it unloads the package.
///
/// # Safety
/// Called by R's thread when it loads the package.
#[no_mangle]
pub unsafe extern "C" fn kaichi_init_vectors(dll: *mut DllInfo) {
    // SAFETY: the names are C strings, and every method has the signature that R asks for.
    CLASSES.get_or_init(|| unsafe {
        let integers = R_make_altinteger_class(c"integers".as_ptr(), c"kaichi".as_ptr(), dll);
        R_set_altrep_Length_method(integers, Some(length));
        R_set_altvec_Dataptr_method(integers, Some(values));
        R_set_altvec_Dataptr_or_null_method(integers, Some(values_to_read));
        R_set_altinteger_Elt_method(integers, Some(integer));
        let reals = R_make_altreal_class(c"reals".as_ptr(), c"kaichi".as_ptr(), dll);
        R_set_altrep_Length_method(reals, Some(length));
        R_set_altvec_Dataptr_method(reals, Some(values));
        R_set_altvec_Dataptr_or_null_method(reals, Some(values_to_read));
        R_set_altreal_Elt_method(reals, Some(real));
        let strings = R_make_altstring_class(c"strings".as_ptr(), c"kaichi".as_ptr(), dll);
        R_set_altrep_Length_method(strings, Some(length));
        R_set_altrep_Duplicate_method(strings, Some(duplicate));
        R_set_altvec_Dataptr_method(strings, Some(strings_pointer));
        R_set_altvec_Dataptr_or_null_method(strings, Some(strings_to_read));
        R_set_altstring_Elt_method(strings, Some(string));
        R_set_altstring_Set_elt_method(strings, Some(set_string));
        R_set_altstring_No_NA_method(strings, Some(has_no_na));
        Classes { integers, reals, strings }
    });
}

pub fn integers(values: Vec<i32>) -> Robj {
    new(Source::Integers(values), ().into())
}

pub fn reals(values: Vec<f64>) -> Robj {
    new(Source::Reals(values), ().into())
}

/// Names, none of them empty.
pub fn names(names: Vec<String>) -> Robj {
    new(Source::Names(names), ().into())
}

/// The strings of `of` at these 1-based places; 0 is NA.
pub fn chosen(of: &Robj, places: Vec<i32>) -> Robj {
    new(Source::Chosen(places), of.clone())
}

/// Bytes of all sources, and how many start R's garbage collector, which does not see them: twice what was in use after
/// the last time, as R does with its own.
static HELD: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(LEAST_LIMIT);
const LEAST_LIMIT: usize = 1 << 30;

fn new(source: Source, of: Robj) -> Robj {
    let Some(classes) = CLASSES.get() else {
        // Only if R has not loaded the package.
        return ().into();
    };
    let class = match source {
        Source::Integers(_) => classes.integers,
        Source::Reals(_) => classes.reals,
        Source::Names(_) | Source::Chosen(_) => classes.strings,
    };
    if HELD.fetch_add(source.bytes(), Ordering::Relaxed) + source.bytes() > LIMIT.load(Ordering::Relaxed) {
        // SAFETY: on R's thread, with nothing unprotected.
        unsafe { R_gc() };
        LIMIT.store((2 * HELD.load(Ordering::Relaxed)).max(LEAST_LIMIT), Ordering::Relaxed);
    }
    // SAFETY: on R's thread; the pointer owns the box until its finaliser runs, and every new object is protected.
    unsafe {
        let pointer = Box::into_raw(Box::new(source));
        let owner = Rf_protect(R_MakeExternalPtr(pointer.cast(), R_NilValue, of.get()));
        R_RegisterCFinalizerEx(owner, Some(finalise), Rboolean::FALSE);
        let vector = Rf_protect(R_new_altrep(class, owner, R_NilValue));
        let robj = Robj::from_sexp(vector);
        Rf_unprotect(2);
        robj
    }
}

extern "C" {
    fn R_gc();
}

unsafe extern "C" fn finalise(owner: SEXP) {
    // SAFETY: R calls this once for each pointer that `new` made, and nothing refers to it any more.
    unsafe {
        let pointer: *mut Source = R_ExternalPtrAddr(owner).cast();
        R_ClearExternalPtr(owner);
        if !pointer.is_null() {
            let source = Box::from_raw(pointer);
            HELD.fetch_sub(source.bytes(), Ordering::Relaxed);
        }
    }
}

/// The source, and the vector that strings are chosen from; None once all strings are made.
unsafe fn source<'a>(x: SEXP) -> Option<(&'a Source, SEXP)> {
    // SAFETY: data1 is NULL or a pointer of `new`, which lives as long as `x`.
    unsafe {
        let owner = R_altrep_data1(x);
        if owner == R_NilValue {
            return None;
        }
        let source: *const Source = R_ExternalPtrAddr(owner).cast();
        source.as_ref().map(|source| (source, R_ExternalPtrProtected(owner)))
    }
}

unsafe extern "C" fn length(x: SEXP) -> R_xlen_t {
    // SAFETY: `x` is of one of these classes.
    unsafe { source(x).map_or_else(|| Rf_xlength(R_altrep_data2(x)), |(source, _)| source.len() as R_xlen_t) }
}

unsafe extern "C" fn values(x: SEXP, _writable: Rboolean) -> *mut c_void {
    // SAFETY: `x` is of the integers or reals, whose memory belongs to this one vector: R may write to it where it would
    // write to a vector of its own.
    unsafe {
        let source: *mut Source = R_ExternalPtrAddr(R_altrep_data1(x)).cast();
        match source.as_mut() {
            Some(Source::Integers(values)) => values.as_mut_ptr().cast(),
            Some(Source::Reals(values)) => values.as_mut_ptr().cast(),
            _ => std::ptr::null_mut(),
        }
    }
}

unsafe extern "C" fn values_to_read(x: SEXP) -> *const c_void {
    // SAFETY: as above.
    unsafe { values(x, Rboolean::FALSE) }
}

unsafe extern "C" fn integer(x: SEXP, i: R_xlen_t) -> c_int {
    // SAFETY: `x` is of the integers, and R asks only for elements within its length.
    unsafe { *values(x, Rboolean::FALSE).cast::<c_int>().offset(i) }
}

unsafe extern "C" fn real(x: SEXP, i: R_xlen_t) -> f64 {
    // SAFETY: `x` is of the reals, and R asks only for elements within its length.
    unsafe { *values(x, Rboolean::FALSE).cast::<f64>().offset(i) }
}

unsafe extern "C" fn string(x: SEXP, i: R_xlen_t) -> SEXP {
    // SAFETY: `x` is of the strings, and R asks only for elements within its length.
    unsafe {
        match source(x) {
            None => STRING_ELT(R_altrep_data2(x), i),
            Some((Source::Chosen(places), of)) => match places.get(i as usize) {
                Some(&place) if place > 0 => STRING_ELT(of, place as R_xlen_t - 1),
                _ => R_NaString,
            },
            Some((Source::Names(names), _)) => {
                // R code takes the string of an element to be protected by its vector.
                let made = names_made(x, names.len());
                let string = STRING_ELT(made, i);
                if string != R_BlankString {
                    return string;
                }
                let Some(name) = names.get(i as usize) else { return R_NaString };
                let string = Rf_mkCharLenCE(name.as_ptr().cast(), name.len() as c_int, cetype_t::CE_UTF8);
                SET_STRING_ELT(made, i, string);
                string
            }
            Some(_) => R_NaString,
        }
    }
}

unsafe fn names_made(x: SEXP, n: usize) -> SEXP {
    // SAFETY: `x` is of the strings and protected by the caller; data2 protects the new vector.
    unsafe {
        let made = R_altrep_data2(x);
        if made != R_NilValue {
            return made;
        }
        let made = Rf_allocVector(SEXPTYPE::STRSXP, n as R_xlen_t);
        R_set_altrep_data2(x, made);
        made
    }
}

/// Makes all strings and lets the source go.
unsafe fn make_all(x: SEXP) -> SEXP {
    // SAFETY: `x` is of the strings and protected by the caller.
    unsafe {
        match source(x) {
            None => return R_altrep_data2(x),
            Some((Source::Names(names), _)) => {
                for i in 0..names.len() {
                    string(x, i as R_xlen_t);
                }
                names_made(x, names.len());
            }
            Some((Source::Chosen(places), _)) => {
                let all = Rf_protect(Rf_allocVector(SEXPTYPE::STRSXP, places.len() as R_xlen_t));
                for i in 0..places.len() as R_xlen_t {
                    SET_STRING_ELT(all, i, string(x, i));
                }
                R_set_altrep_data2(x, all);
                Rf_unprotect(1);
            }
            Some(_) => {}
        }
        R_set_altrep_data1(x, R_NilValue);
        R_altrep_data2(x)
    }
}

unsafe extern "C" fn strings_pointer(x: SEXP, _writable: Rboolean) -> *mut c_void {
    // SAFETY: R protects `x`; R code sets strings by SET_STRING_ELT, never through the pointer.
    unsafe { STRING_PTR_RO(make_all(x)).cast_mut().cast() }
}

unsafe extern "C" fn strings_to_read(x: SEXP) -> *const c_void {
    // SAFETY: `x` is of the strings.
    unsafe {
        match source(x) {
            None => STRING_PTR_RO(R_altrep_data2(x)).cast(),
            Some(_) => std::ptr::null(),
        }
    }
}

unsafe extern "C" fn set_string(x: SEXP, i: R_xlen_t, string: SEXP) {
    // SAFETY: R protects `x` and `string`.
    unsafe { SET_STRING_ELT(make_all(x), i, string) }
}

unsafe extern "C" fn has_no_na(x: SEXP) -> c_int {
    // SAFETY: `x` is of the strings.
    c_int::from(matches!(unsafe { source(x) }, Some((Source::Names(_), _))))
}

/// A copy shares what cannot change.
unsafe extern "C" fn duplicate(x: SEXP, _deep: Rboolean) -> SEXP {
    // SAFETY: R protects `x`, and with it the source; a null pointer asks R to copy the strings itself.
    unsafe {
        match (CLASSES.get(), source(x)) {
            (Some(classes), Some(_)) => R_new_altrep(classes.strings, R_altrep_data1(x), R_NilValue),
            _ => std::ptr::null_mut(),
        }
    }
}
