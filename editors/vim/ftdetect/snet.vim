autocmd BufRead,BufNewFile *.snet setfiletype snet
autocmd BufRead,BufNewFile *.prototxt setfiletype prototxt
