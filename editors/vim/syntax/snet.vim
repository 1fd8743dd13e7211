" The .snet language.
if exists("b:current_syntax")
  finish
endif

syntax match snetName /\<[A-Za-z_]\w*\>/
syntax keyword snetDeclaration net block solver spark let option default import from as
syntax keyword snetStatement replace drop set for in if else is
syntax keyword snetOperatorWord and or not
syntax keyword snetBoolean true false
syntax match snetFunction /\<\%(range\|len\|str\|int\|min\|max\)\ze\s*(/
syntax match snetField /\<[A-Za-z_]\w*\ze\s*==\@!/
syntax match snetType /\<[A-Z]\w*\ze\s*[(!]/
syntax match snetType /\%(:\s\+\)\@<=[A-Z]\w*\>/
syntax match snetNumber /\<\d\+\%(\.\d*\)\?\%([eE][-+]\?\d\+\)\?/
syntax match snetPhase /@[A-Za-z_]\w*/
syntax match snetArrow /->/
syntax match snetInPlace /!=\@!/
syntax match snetEscape /\\./ contained
syntax region snetString start=/"/ skip=/\\./ end=/"/ oneline contains=snetEscape
syntax region snetLabel start=/`/ end=/`/ oneline
syntax match snetComment /#.*$/ contains=@Spell

highlight default link snetDeclaration Keyword
highlight default link snetStatement Statement
highlight default link snetOperatorWord Operator
highlight default link snetBoolean Boolean
highlight default link snetFunction Function
highlight default link snetField Identifier
highlight default link snetType Type
highlight default link snetNumber Number
highlight default link snetPhase PreProc
highlight default link snetArrow Operator
highlight default link snetInPlace Special
highlight default link snetEscape SpecialChar
highlight default link snetString String
highlight default link snetLabel Identifier
highlight default link snetComment Comment

let b:current_syntax = "snet"
