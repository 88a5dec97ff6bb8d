# Starts a program and goes on. Shells start it with SIGINT ignored, which R 4.5 leaves so: where `env` can, it is as at a prompt.
run_behind <- function(program, arguments, stderr = FALSE) {
  as_at_a_prompt <- "--default-signal=INT"
  if (suppressWarnings(system2("env", c(as_at_a_prompt, "true"), stdout = FALSE, stderr = FALSE)) == 0L) {
    arguments <- c(as_at_a_prompt, shQuote(program), arguments)
    program <- "env"
  }
  system2(program, arguments, stdout = FALSE, stderr = stderr, wait = FALSE)
}
