# Run by R CMD INSTALL: the library, and the sources of the command line, which install_cli() builds.
libs <- file.path(R_PACKAGE_DIR, paste0("libs", R_ARCH))
dir.create(libs, recursive = TRUE, showWarnings = FALSE)
file.copy(Sys.glob(paste0("*", SHLIB_EXT)), libs, overwrite = TRUE)
if (file.exists("symbols.rds")) file.copy("symbols.rds", libs, overwrite = TRUE)

rust <- file.path(R_PACKAGE_DIR, "rust")
dir.create(rust, showWarnings = FALSE)
# The workspace, without what was built or unpacked in it.
file.copy(file.path("rust", c("Cargo.toml", "Cargo.lock", "src", "core", "cli", "hdf5")), rust, recursive = TRUE)
file.copy(file.path("..", "tools", "msrv.R"), rust)
