#!/bin/sh
# CMake's launcher of nvcc: keeps what ptxas says of the kernels beside the object, for `npm run cuda:report`, and
# shows the rest.
object=''
previous=''
for argument in "$@"; do
  if [ "$previous" = -o ]; then object=$argument; fi
  previous=$argument
done
status=0
output=$("$@" 2>&1) || status=$?
if [ "$status" = 0 ] && [ -n "$object" ]; then printf '%s\n' "$output" >"$object.ptxas"; fi
printf '%s\n' "$output" | grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame|^$'
exit "$status"
