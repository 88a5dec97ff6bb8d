/* The linker takes from a static library only what an object asks for: this object asks for extendr's registration. */
void R_init_kaichi_extendr(void *dll);
void kaichi_init_vectors(void *dll);

void R_init_kaichi(void *dll) {
    R_init_kaichi_extendr(dll);
    kaichi_init_vectors(dll);
}
