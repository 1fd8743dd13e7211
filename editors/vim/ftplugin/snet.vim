setlocal commentstring=#\ %s comments=:# expandtab shiftwidth=2
setlocal formatprg=sparknet-fmt\ -
